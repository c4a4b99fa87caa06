"""A group of channels: what has to go together so that the rest of the network stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgesdk.compress.channel_slices import Member


@dataclass(frozen=True, kw_only=True)
class Resized:
    """A number that a module keeps as an attribute and that shrinks by ``per_unit`` with each unit
    of channels: how many heads it has, or how wide they are together."""

    module: str
    attribute: str
    before: int
    per_unit: int


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Output channels of ``layer`` that can be removed, and every layer that then loses some.

    ``units`` divides the ``width`` channels into sets that only go together: single channels,
    one channel of each block of a grouped convolution, or (``unit_name`` "heads") a head of an
    attention. All units are equally large. ``traced``: found in what flows where instead of by
    Torch-Pruning, and cut as the members and the ``resized`` numbers say.
    """

    layer: str
    width: int
    units: tuple[tuple[int, ...], ...]
    members: tuple[Member, ...]
    unit_name: Literal["channels", "heads"] = "channels"
    traced: bool = False
    resized: tuple[Resized, ...] = ()

    @property
    def unit(self) -> int:
        """How many channels have to go together."""
        return len(self.units[0])

    @property
    def heads(self) -> int:
        """How many attention heads the channels are, 0 where they are single channels."""
        return len(self.units) if self.unit_name == "heads" else 0


class Refusal(Exception):
    """The reason why the channels of a layer cannot be pruned."""
