"""The options a plan chooses among: a pruning candidate together with a number format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from edgesdk.graph import OpGraph
from edgesdk.plan import PrunedGroup
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class PruningCandidate:
    """One way to prune, and the graph that remains; no groups means the original.

    ``spread``: "global" removes the least important channels wherever they are, "uniform" the
    same share of every group. The first loses least per channel, the second takes as much from
    the wide, early feature maps, where the time goes.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    ratio: float
    spread: Literal["global", "uniform"] = "global"
    groups: tuple[PrunedGroup, ...]
    graph: OpGraph


@dataclass(frozen=True, kw_only=True)
class Option:
    """Which candidate (an index), and how it is stored and computed."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    candidate: int
    scheme: Scheme
    name: str


def option_name(candidate: PruningCandidate, scheme: Scheme) -> str:
    """Return the option's name in plans and reports: ``int8``, ``int8, pruned 30 %``, or
    ``int8, pruned 30 % everywhere`` for a uniform share of every group."""
    if not candidate.groups:
        return scheme
    where = " everywhere" if candidate.spread == "uniform" else ""
    return f"{scheme}, pruned {100 * candidate.ratio:.0f} %{where}"
