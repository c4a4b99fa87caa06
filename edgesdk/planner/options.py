"""The options a plan chooses among: how many channels every group keeps, and number formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ConfigDict

from edgesdk.planner.departures import Departures
from edgesdk.planner.widths import Widths
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class Option:
    """The channels every group keeps (``WidthModel.groups``), and how they are computed.

    ``departures`` are the layers that have another scheme than the network. ``name`` tells a
    person; two options of one name may differ in which groups are narrow and which layers depart.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    scheme: Scheme
    widths: Widths
    name: str
    departures: Departures = ()

    @property
    def layer_schemes(self) -> Mapping[str, Scheme]:
        """The departures by layer."""
        return dict(self.departures)


def option_for(widths: Widths, full: Widths, scheme: Scheme, departures: Departures = ()) -> Option:
    """Return the option, named by its schemes and the share of channels that go, if any do."""
    counts = Counter(departure.scheme for departure in departures)
    named = [f"{n} layer{'s' if n > 1 else ''} {other}" for other, n in sorted(counts.items())]
    name = f"{scheme} with {' and '.join(named)}" if named else scheme
    if widths != full:
        name += f", pruned {100 * pruned_share(widths, full):.0f} %"
    return Option(scheme=scheme, widths=widths, name=name, departures=departures)


def pruned_share(widths: Sequence[int], full: Sequence[int]) -> float:
    """Return the share of the groups' channels that go, 0 where there are no groups."""
    return 1 - sum(widths) / sum(full) if full else 0.0
