"""The shape that a plan's steps leave a network in, whatever they do to its weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edgesdk.compress.factorize import factorized
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.compress.prune import prune
from edgesdk.plan import AdaRound, BiasCorrection, Equalize, Factorize, Prune, Qat, Step
from edgesdk.task import Task, Tensors

PREPARING = Equalize | AdaRound | BiasCorrection | Qat
"""The steps that prepare a network for its rounding; they fold its batch norms."""


def shaped_by(task: Task, steps: Sequence[Step]) -> nn.Module:
    """Return the task's network without what the steps prune, its layers split and batch norms
    folded where they do that.

    The weights that stay are the original's; layers are split by their weights alone.
    """
    module = task.model
    for step in steps:
        module = shaped(module, task.example_inputs, step)
    return module


def shaped(module: nn.Module, example_inputs: Tensors, step: Step) -> nn.Module:
    """Return the module in the shape that one step leaves it in, the same one where it stays."""
    if isinstance(step, Prune):
        return prune(module, example_inputs, step.groups, blocks=step.removed_blocks)
    if isinstance(step, Factorize):
        return factorized(module, example_inputs, step.ranks, ())
    if isinstance(step, PREPARING):
        return fold_batch_norms(module, example_inputs)
    return module
