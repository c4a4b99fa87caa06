"""The options a plan chooses among: a pruning candidate together with a number format."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict

from edgesdk.graph import OpGraph
from edgesdk.plan import PrunedGroup
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class PruningCandidate:
    """One way to prune, and the graph that remains; no groups means the original."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    ratio: float
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
    """Return the option's name in plans and reports: ``int8``, ``int8, pruned 30 %``."""
    if not candidate.groups:
        return scheme
    return f"{scheme}, pruned {100 * candidate.ratio:.0f} %"
