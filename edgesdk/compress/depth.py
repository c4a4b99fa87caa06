"""Depth pruning: whole residual blocks go, and a module that does nothing stands where they were.

``edgesdk.residual`` finds the blocks in the traced graph. Nothing it says is believed untested: the
shortened module, traced, must be the original's graph without the blocks' operators.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edgesdk.compress.shared_copy import shared_copy
from edgesdk.errors import TaskError, UnsupportedModel, UsageError, near_names
from edgesdk.graph import OpGraph
from edgesdk.residual import (
    ResidualBlock,
    computes_alike,
    is_within,
    residual_blocks,
    without_blocks,
)
from edgesdk.task import Tensors
from edgesdk.trace import trace


class Passage(nn.Identity):
    """Stands where a block was and gives what it reads; other arguments (masks) are unread."""

    def forward(self, input: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return the first argument."""
        return input


@dataclass(frozen=True, kw_only=True)
class BlockSurvey:
    """The residual blocks that can go, and for those that look so and cannot the reason."""

    blocks: tuple[ResidualBlock, ...]
    refused: Mapping[str, str]


def survey_blocks(model: nn.Module, example_inputs: Tensors, graph: OpGraph) -> BlockSurvey:
    """Return the residual blocks of a model, traced as ``graph``, that can go.

    All are taken out on trial together; only where that fails each one alone.
    """
    blocks = residual_blocks(graph)
    refused = {
        block.name: "it shares weights with the rest of the network"
        for block in blocks
        if _shares_weights(model, block.name)
    }
    candidates = [block for block in blocks if block.name not in refused]
    if not candidates or _trial(model, example_inputs, graph, candidates) is None:
        return BlockSurvey(blocks=tuple(candidates), refused=refused)
    found = []
    for block in candidates:
        reason = _trial(model, example_inputs, graph, [block])
        if reason is None:
            found.append(block)
        else:
            refused[block.name] = reason
    return BlockSurvey(blocks=tuple(found), refused=refused)


def check_blocks(model: nn.Module, example_inputs: Tensors, names: Sequence[str]) -> None:
    """Raise ``UsageError`` unless the model is whole without those blocks, and all can go."""
    if not names:
        return
    if len(set(names)) < len(names):
        raise UsageError("a block to remove is there twice", expected="each block once")
    inputs = tuple(example.cpu() for example in example_inputs)
    graph = trace(model, inputs, name="model")
    blocks = residual_blocks(graph)
    known = {block.name: block for block in blocks if not _shares_weights(model, block.name)}
    for name in names:
        if name not in known:
            near = near_names(name, known)
            raise UsageError(
                f"{name!r} is no residual block of the model that can go",
                expected="a module that adds something to its only input and gives the same "
                "shape, inside of the network and with weights of its own; there are "
                f"{', '.join(known) or 'none'}",
                next_step=f"did you mean {' or '.join(near)}?" if near else "make a new plan",
            )
    reason = _trial(model, inputs, graph, [known[name] for name in names])
    if reason is not None:
        raise UsageError(
            f"the blocks {', '.join(names)} cannot go: {reason}",
            next_step="leave one of them in the plan's network",
        )


def shortened(model: nn.Module, names: Collection[str]) -> nn.Module:
    """Return a copy with a ``Passage`` in place of those blocks; it shares the model's weights."""
    copied = shared_copy(model)
    for name in names:
        owner, _, last = name.rpartition(".")
        setattr(copied.get_submodule(owner), last, Passage().train(model.training))
    return copied


def _shares_weights(model: nn.Module, name: str) -> bool:
    """Return whether a module outside of the block has weights of it, which then would not go."""
    inside: set[int] = set()
    outside: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        held = {id(each) for each in module._parameters.values() if each is not None}
        (inside if is_within(path, name) else outside).update(held)
    return bool(inside & outside)


def _trial(
    model: nn.Module, example_inputs: Tensors, graph: OpGraph, blocks: Sequence[ResidualBlock]
) -> str | None:
    """Return why the network without the blocks is not what it should be, None where it is."""
    inputs = tuple(example.cpu() for example in example_inputs)
    try:
        found = trace(shortened(model, [block.name for block in blocks]), inputs, name=graph.model)
    except (TaskError, UnsupportedModel) as problem:
        return problem.found
    if not computes_alike(without_blocks(graph, blocks), found):
        return "without them the rest of the model computes something else"
    return None
