"""Does the planner keep its promises? Its decisions against measurements, search and other tools.

    python benchmarks/planner.py [rank exhaustive field budgets recovery] -o folder [--subset small]

- ``budgets``: what ``compile`` calls kept holds when it is checked again; what a coarse grid of
  networks keeps with room to spare is kept; what nothing can keep is refused before any training.
- ``field``: accuracy at equal measured latency, against Torch-Pruning with the same training and
  the same int8, and against int8 alone.
- ``exhaustive``: how far from the best of a space in which every candidate is trained.
- ``rank``: does the expected loss rank plans of equal latency as the real one does?
- ``recovery``: benchmarks/recovery.py, what each way of winning accuracy back gives.

Without a name all of them run. ``--subset small`` takes the networks that read digits; all else
needs the images and weights that benchmarks/tasks/ names (EDGESDK_DATA) and many hours. Every
finished cell is in ``folder/planner.json``; the same command goes on after the last.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import planner_budgets
import planner_exhaustive
import planner_field
import planner_rank
import recovery
from remembered import Remembered

Subset = Literal["small", "full"]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What a subset runs: the tasks of each section, and how often what is trained is."""

    rank: tuple[str, ...]
    exhaustive: tuple[str, ...]
    field: tuple[str, ...]
    budgets: tuple[str, ...]
    recovery: tuple[str, ...]
    seeds: int = 3


MATRICES: Mapping[Subset, Matrix] = {
    "small": Matrix(
        rank=("digits", "digits-depthwise"),
        exhaustive=("digits-three-layers",),
        field=("digits",),
        budgets=("digits",),
        recovery=recovery.QUICK,
    ),
    "full": Matrix(
        rank=("digits", "digits-depthwise", "resnet20", "fashion-depthwise"),
        exhaustive=("digits-three-layers",),
        field=("digits", "resnet20", "fashion-residual", "fashion-depthwise"),
        budgets=("digits", "resnet20", "fashion-depthwise"),
        recovery=tuple(recovery.TASKS),
    ),
}
PLANS_A_BAND = 25


def rank(matrix: Matrix, memory: Remembered) -> Iterator[str]:
    """Yield the correlations between expected and real losses."""
    return planner_rank.rank(matrix.rank, PLANS_A_BAND, memory)


def exhaustive(matrix: Matrix, memory: Remembered) -> Iterator[str]:
    """Yield the distances from the best candidate."""
    return planner_exhaustive.exhaustive(matrix.exhaustive, matrix.seeds, memory)


def field(matrix: Matrix, memory: Remembered) -> Iterator[str]:
    """Yield the accuracies at equal latency."""
    return planner_field.field(matrix.field, matrix.seeds, memory)


def budgets(matrix: Matrix, memory: Remembered) -> Iterator[str]:
    """Yield how many budgets were kept, and what was promised and broken."""
    return planner_budgets.budgets(matrix.budgets, memory)


def recovered(matrix: Matrix, memory: Remembered) -> Iterator[str]:
    """Yield what each way of winning accuracy back gives."""
    state = memory.path.with_name("recovery.jsonl")
    for name in matrix.recovery:
        yield from recovery.table(name, recovery.completed(name, state, seeds=matrix.seeds))


Section = Callable[[Matrix, Remembered], Iterator[str]]
SECTIONS: Mapping[str, Section] = {
    "rank": rank,
    "exhaustive": exhaustive,
    "field": field,
    "budgets": budgets,
    "recovery": recovered,
}


def main() -> int:
    """Run what is not finished and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", nargs="*", choices=[*SECTIONS, []])
    parser.add_argument("--subset", choices=list(MATRICES), default="full")
    parser.add_argument("--seeds", type=int, default=Matrix.seeds)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    matrix = replace(MATRICES[options.subset], seeds=options.seeds)
    memory = Remembered(path=options.out / "planner.json")
    for name in options.section or SECTIONS:
        print(f"## {name}\n")
        for line in SECTIONS[name](matrix, memory):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
