"""What some kernels cost at every width of the channel groups that they depend on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgesdk.cost.fusion import Kernel
from edgesdk.graph import OpGraph
from edgesdk.planner.widths import WidthModel

Floats = NDArray[np.float64]
Costs = tuple[float, float]
"""Milliseconds and bytes of weights."""
Price = Callable[[OpGraph, frozenset[str]], Costs]
"""Prices the kernels of a part of the graph that are led by the named operators."""

MOST_GROUPS = 2
"""With more, a table would have as many axes; concatenations' readers alone depend on more."""


def members_of(kernels: Iterable[Kernel]) -> set[str]:
    """Return the operators of some kernels: those that lead them, and those folded into them."""
    return {name for kernel in kernels for name in (kernel.op.name, *kernel.folded)}


def groups_of(model: WidthModel, kernels: Iterable[Kernel]) -> tuple[int, ...]:
    """Return the groups whose widths change what some kernels cost, ascending."""
    members = members_of(kernels)
    touched = (model.groups_of(op) for op in model.graph.ops if op.name in members)
    return tuple(sorted(frozenset[int]().union(*touched)))


def width_tables(
    model: WidthModel, choices: Sequence[Sequence[int]], groups: Sequence[int],
    kernels: Sequence[Kernel], price: Price,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Return what kernels cost in milliseconds and in bytes of weights, one axis for each of
    ``groups``, at their ``choices`` of widths."""
    shape = tuple(len(choices[group]) for group in groups)
    latency, stored = np.zeros(shape), np.zeros(shape)
    names, leads = members_of(kernels), frozenset(kernel.op.name for kernel in kernels)
    for place in itertools.product(*map(range, shape)):
        widths = list(model.full)
        for group, index in zip(groups, place, strict=True):
            widths[group] = choices[group][index]
        latency[place], stored[place] = price(model.at(tuple(widths), names), leads)
    return latency, stored
