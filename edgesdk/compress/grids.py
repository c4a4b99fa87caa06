"""Which activations of a network share an integer grid, and after which operators they are rounded.

What the quantizers have in common, because the kernels do:

- what an operator computes is rounded to a grid of its own, and so is every input;
- a clamp (ReLU, ReLU6, ...) that alone reads a layer, a sum or a product is part of it: only what
  comes out of the clamp is rounded;
- what moves or selects values (reshape, max pooling, slice) keeps the grid of what it reads;
- what a concatenation reads is on one grid with its result.

Where they differ is in ``Quantizer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from edgesdk.compress.program import CLAMPS, WEIGHTED, Program, is_float, kind_of, only_user
from edgesdk.compress.rounding import Quantizer

_JOINS = ("cat", "concat", "stack")
_ABSORBING = (*WEIGHTED, "batch_norm", "add", "sub", "mul")
_POOLING = ("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean")


@dataclass(frozen=True, kw_only=True, eq=False)
class Grids:
    """``rounded`` maps every node whose result is rounded to the number of its grid; ``observed``
    those whose values set a grid's range, in the graph's order; ``count`` is the number of grids.
    """

    rounded: Mapping[fx.Node, int]
    observed: Mapping[fx.Node, int]
    count: int

    def times(self, node: fx.Node) -> int:
        """Return how often a value is seen: XNNPACK's graph has two operators for a mean over an
        image (one that keeps its dimensions, one that flattens), each with the grid's observer."""
        value = node.meta.get("val")
        return 2 if kind_of(node) == "mean" and value is not None and value.dim() == 2 else 1


def find_grids(program: Program, quantizer: Quantizer) -> Grids:
    """Return the grids of a program's activations, numbered in the graph's order."""
    finder = _Finder(quantizer)
    for node in program.graph.nodes:
        if node not in program.fixed and node.op != "output":
            finder.visit(node)
    return finder.grids()


class _Finder:
    """Gives nodes grids one by one, in the graph's order; grids are merged by ``_join``."""

    def __init__(self, quantizer: Quantizer) -> None:
        self._rules = quantizer
        self._grid: dict[fx.Node, int] = {}
        self._parents: list[int] = []
        self._rounded: list[fx.Node] = []
        self._observed: list[fx.Node] = []

    def visit(self, node: fx.Node) -> None:
        kind, known = kind_of(node), [read for read in node.all_input_nodes if read in self._grid]
        if kind in _JOINS and known:
            self._join(node, known)
        elif kind in self._rules.keeping and known and not absorbs(node):
            self._grid[node] = self._grid[known[0]]
            if not is_float(node):
                return  # several tensors, as of a split: who takes one out keeps the grid
            if kind in (*_POOLING, *CLAMPS):
                self._rounded.append(node)
            if self._rules.observer == "histogram":
                self._observed.append(node)
        elif is_float(node) and not _is_absorbed(node) and self._is_integer(node):
            self._give_grid(node)

    def _give_grid(self, node: fx.Node) -> None:
        self._grid[node] = len(self._parents)
        self._parents.append(len(self._parents))
        self._rounded.append(node)
        self._observed.append(node)

    def _join(self, node: fx.Node, known: list[fx.Node]) -> None:
        """Put a concatenation on one grid with what it reads, as far as the quantizer does."""
        self._give_grid(node)
        number = self._grid[node]
        for read in known:
            alone = read in self._observed and only_user(read) is node
            if self._rules.joins_share or alone:
                self._parents[self._root(self._grid[read])] = number

    def _is_integer(self, node: fx.Node) -> bool:
        """Return whether a node's result is rounded: computed in integers, or read by such."""
        integer = self._rules.integer
        if integer is None or _kind_with_clamp(node) in integer:
            return True
        return any(kind_of(user) in integer for user in node.users)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            number = self._parents[number]
        return number

    def grids(self) -> Grids:
        roots = {node: self._root(number) for node, number in self._grid.items()}
        order = dict.fromkeys(roots[node] for node in self._rounded)
        numbers = {root: index for index, root in enumerate(order)}
        return Grids(
            rounded={node: numbers[roots[node]] for node in self._rounded},
            observed={node: numbers[roots[node]] for node in self._observed},
            count=len(numbers),
        )


def _kind_with_clamp(node: fx.Node) -> str:
    """Return the operator that a node computes, that in front of it where it is its clamp."""
    return kind_of(node.all_input_nodes[0]) if absorbs(node) else kind_of(node)


def absorbs(node: fx.Node) -> bool:
    """Return whether a clamp is computed as part of the operator that it alone reads."""
    source = node.all_input_nodes[0] if node.all_input_nodes else None
    return kind_of(node) in CLAMPS and source is not None and _is_absorbed(source)


def _is_absorbed(node: fx.Node) -> bool:
    """Return whether what follows a node is computed together with it."""
    reader = only_user(node)
    if reader is None or kind_of(node) not in _ABSORBING:
        return False
    if kind_of(reader) == "batch_norm":
        return kind_of(node) in WEIGHTED and reader.args[0] is node
    return kind_of(reader) in CLAMPS
