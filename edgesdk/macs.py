"""Multiply-accumulates of each kind of operator: the rules, one function each.

What has no rule (elementwise operators, pooling, normalisation, data movement, operators from
other libraries) counts zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Call(Protocol):
    """One operator call of a traced graph, as the rules read it."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The call's arguments by name."""

    def results(self) -> int:
        """Return the number of elements of the (first) result."""

    def size(self, argument: str, rank: int = 1) -> tuple[int, ...]:
        """Return the shape of the first tensor given as that argument, of at least that rank."""

    def shapes(self, argument: str, rank: int = 1) -> list[tuple[int, ...]]:
        """Return the shapes of all tensors given as that argument."""


def count_macs(kind: str, call: Call) -> int:
    """Return the multiply-accumulates of a call of that kind, 0 where no rule counts any."""
    rule = _RULES.get(kind)
    return rule(call) if rule is not None else 0


def _product(argument: str) -> Callable[[Call], int]:
    """Every result element is a sum over the last dimension of that argument."""
    return lambda call: call.results() * call.size(argument)[-1]


def _convolution(call: Call) -> int:
    """Every result element takes one filter of the weight [out, in / groups, *kernel]."""
    if call.arguments.get("transposed"):
        return _transposed_convolution(call)
    return call.results() * math.prod(call.size("weight", rank=2)[1:])


def _transposed_convolution(call: Call) -> int:
    """Every input element meets [out / groups, *kernel] weights, also where padding crops."""
    return math.prod(call.size("input")) * math.prod(call.size("weight", rank=2)[1:])


def _attention(call: Call) -> int:
    """Scores [..., L, S] over E, then their product with the values; a mask saves nothing."""
    query, key, value = (call.size(name, rank=2) for name in ("query", "key", "value"))
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(call: Call) -> int:
    """Every weight matrix of every layer and direction, once a time step and sample."""
    steps = math.prod(call.size(next(iter(call.arguments), ""))[:-1])
    return steps * sum(math.prod(shape) for shape in call.shapes("params") if len(shape) == 2)


def _einsum(call: Call) -> int:
    """Operands contracted from left to right, each step over all indices that occur in it."""
    left, arrow, right = str(call.arguments["equation"]).replace(" ", "").partition("->")
    terms, shapes = left.split(","), call.shapes("tensors", rank=0)
    sizes: dict[str, int] = {}
    indices: list[set[str]] = []
    for term, shape in zip(terms, shapes, strict=False):
        head, _, tail = term.partition("...")
        batch = [f"...{i}" for i in range(len(shape) - len(head) - len(tail), 0, -1)]
        names = [*head, *batch, *tail]
        indices.append(set(names))
        sizes.update({n: max(s, sizes.get(n, 1)) for n, s in zip(names, shape, strict=False)})
    kept = set(right) if arrow else {n for n in sizes if left.count(n) == 1}
    kept |= {name for name in sizes if name.startswith("...")}
    macs, current = 0, indices[0]
    for step, term_indices in enumerate(indices[1:], start=2):
        needed = kept.union(*indices[step:])
        every = current | term_indices
        if not current == term_indices <= needed:  # otherwise it is elementwise
            macs += math.prod(sizes[name] for name in every)
        current = every & needed
    return macs


_RULES: Mapping[str, Callable[[Call], int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _convolution),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed_convolution
    ),
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _product("self")),
    "linear": _product("input"),
    "addmm": _product("mat1"),
    "addmv": _product("mat"),
    "baddbmm": _product("batch1"),
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}
