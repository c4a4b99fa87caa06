"""The options a plan chooses among: how many channels every group keeps, and number formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ConfigDict

from edgesdk.graph import OpGraph
from edgesdk.low_rank import Splits
from edgesdk.planner.departures import Departures
from edgesdk.planner.widths import WidthModel, Widths
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class Option:
    """The channels every group keeps (``WidthModel.groups``), and how they are computed.

    ``departures`` are the layers that have another scheme than the network, ``removed_blocks`` the
    residual blocks that go; groups within those count as whole. ``splits`` are the layers that
    become two of lower rank. ``name`` tells a person; two options of one name may differ in which
    groups are narrow and which layers depart.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    scheme: Scheme
    widths: Widths
    name: str
    departures: Departures = ()
    removed_blocks: tuple[str, ...] = ()
    splits: Splits = ()

    def is_whole(self, full: Widths) -> bool:
        """Return whether nothing is pruned or split."""
        return self.widths == full and not self.removed_blocks and not self.splits

    def graph(self, model: WidthModel) -> OpGraph:
        """Return what the option computes."""
        return model.at(self.widths, gone=self.removed_blocks, splits=self.splits)

    @property
    def layer_schemes(self) -> Mapping[str, Scheme]:
        """The departures by layer."""
        return dict(self.departures)


def option_for(
    widths: Widths, full: Widths, scheme: Scheme, departures: Departures = (), *,
    removed_blocks: tuple[str, ...] = (), splits: Splits = (),
) -> Option:  # fmt: skip
    """Return the option, named by its schemes, the share of channels and the blocks that go, and
    how many layers are split."""
    counts = Counter(departure.scheme for departure in departures)
    named = [f"{n} layer{'s' if n > 1 else ''} {other}" for other, n in sorted(counts.items())]
    name = f"{scheme} with {' and '.join(named)}" if named else scheme
    if widths != full:
        name += f", pruned {100 * pruned_share(widths, full):.0f} %"
    if removed_blocks:
        name += f", {len(removed_blocks)} block{'s' if len(removed_blocks) > 1 else ''} gone"
    if splits:
        name += f", {len(splits)} layer{'s' if len(splits) > 1 else ''} split"
    return Option(
        scheme=scheme,
        widths=widths,
        name=name,
        departures=departures,
        removed_blocks=removed_blocks,
        splits=splits,
    )


def pruned_share(widths: Sequence[int], full: Sequence[int]) -> float:
    """Return the share of the groups' channels that go, 0 where there are no groups."""
    return 1 - sum(widths) / sum(full) if full else 0.0
