"""The options a plan chooses among: how many channels every group keeps, and a number format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ConfigDict

from edgesdk.planner.widths import Widths
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class Option:
    """The channels every group keeps (``WidthModel.groups``), and how they are computed.

    ``name`` tells a person; two options of one name may differ in which groups are narrow.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    scheme: Scheme
    widths: Widths
    name: str


def option_for(widths: Widths, full: Widths, scheme: Scheme) -> Option:
    """Return the option, named by its scheme and the share of channels that go, if any do."""
    name = f"{scheme}, pruned {100 * pruned_share(widths, full):.0f} %"
    return Option(scheme=scheme, widths=widths, name=scheme if widths == full else name)


def pruned_share(widths: Sequence[int], full: Sequence[int]) -> float:
    """Return the share of the groups' channels that go, 0 where there are no groups."""
    return 1 - sum(widths) / sum(full) if full else 0.0
