"""Batch norms moved with what pruning moved: most of what a pruned network loses at first.

A batch norm subtracts the mean and divides by the deviation that its input had in training. Once
channels in front of it are gone, its input has others, every later layer is off, and the network
fails although most of what it knows is still there. Li et al. 2020 ("EagleEye: Fast Sub-net
Evaluation for Efficient Neural Network Pruning", section 3.3) estimate the statistics anew, and
find that accuracy after that, unlike before, ranks pruned networks as fine-tuning will.

Here they are moved by the difference between the changed and the original network on the same
inputs, not replaced: a few hundred samples estimate a difference far better than the statistics of
a whole training, and where nothing was changed nothing moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgesdk.compress.dependency import Dependencies, prunable_copy
from edgesdk.compress.depth import check_blocks, shortened
from edgesdk.compress.prune import check_groups, removal_of
from edgesdk.compress.removal import disconnected
from edgesdk.compress.shared_copy import shared_copy
from edgesdk.plan import PrunedGroup
from edgesdk.task import Tensors

Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel that a batch norm reads, ``[C]`` each."""

Read = Mapping[str, Sequence[Moments]]
"""For each norm the moments of every tensor that it reads in one pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NormReference:
    """What an original network's batch norms read on some inputs, to tell how others differ.

    ``trained`` are the statistics that the norms have, ``read`` what they read, for each of the
    ``batches``.
    """

    trained: Mapping[str, Moments]
    batches: tuple[Tensors, ...]
    read: tuple[Read, ...]


@torch.no_grad()
def observe_norms(original: nn.Module, batches: Sequence[Tensors]) -> NormReference:
    """Return what the network's batch norms read on inputs ``[N, ...]``, batch by batch.

    A network without batch norms is not run.
    """
    model = shared_copy(original).eval()
    trained = {name: _statistics(norm) for name, norm in _norms(model).items()}
    used = tuple(batches) if trained else ()
    return NormReference(
        trained=trained, batches=used, read=tuple(_read(model, inputs) for inputs in used)
    )


@torch.no_grad()
def recalibrate(changed: nn.Module, reference: NormReference) -> nn.Module:
    """Return ``changed`` with batch norms that follow what its changes did to their inputs.

    Its layers have the original's shapes: channels that go are disconnected, not yet removed
    (``removal.disconnected``); blocks may be gone. What comes back is a copy in eval mode that
    shares the weights (``shared_copy``).
    """
    found = shared_copy(changed).eval()
    norms = _norms(found)
    moved: dict[str, list[Moments]] = {name: [] for name in norms}
    for inputs, before in zip(reference.batches, reference.read, strict=True):
        follow = partial(_follow, trained=reference.trained, before=before, moved=moved)
        with _watched(found, follow):
            found(*inputs)
    for name, norm in norms.items():
        if moved[name]:
            mean, variance = (
                torch.stack(parts).mean(0) for parts in zip(*moved[name], strict=True)
            )
            _set(norm, (mean, variance))
    return found


def recalibrated_for(
    model: nn.Module, example_inputs: Tensors, groups: Sequence[PrunedGroup],
    batches: Sequence[Tensors], *, blocks: Sequence[str] = (),
) -> nn.Module:  # fmt: skip
    """Return a copy of the model, whole still, with the batch norms it needs once groups and
    blocks are gone.

    ``prune`` it next. Raises what ``prune`` raises for groups and blocks that are not the model's.
    """
    check_groups(model, groups)
    check_blocks(model, example_inputs, blocks)
    found = prunable_copy(model).eval()
    dependencies = Dependencies(prunable_copy(model), example_inputs)
    removal = removal_of(dependencies, groups)
    changed = shortened(disconnected(found, removal), blocks)
    followed = _norms(recalibrate(changed, observe_norms(found, batches)))
    for name, norm in _norms(found).items():
        if name in followed:
            _set(norm, _statistics(followed[name]))
    return found


def _read(module: nn.Module, inputs: Tensors) -> Read:
    """Return the moments of each tensor that each norm reads."""
    seen: dict[str, list[Moments]] = {name: [] for name in _norms(module)}
    with _watched(module, lambda name, _norm, moments: seen[name].append(moments)):
        module(*inputs)
    return seen


def _follow(
    name: str, norm: _BatchNorm, moments: Moments, *, trained: Mapping[str, Moments],
    before: Read, moved: Mapping[str, list[Moments]],
) -> None:  # fmt: skip
    """Move a norm's statistics before it computes, so that the norms behind it see that."""
    if len(before[name]) == 1:  # one that reads several tensors has one statistic for all of them
        following = _moved(trained[name], before[name][0], moments, norm.eps)
        _set(norm, following)
        moved[name].append(following)


def _norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch norms that have statistics of their own."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def _statistics(norm: _BatchNorm) -> Moments:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean.clone(), norm.running_var.clone()


def _set(norm: _BatchNorm, moments: Moments) -> None:
    norm.running_mean, norm.running_var = moments


def _moved(trained: Moments, before: Moments, after: Moments, least: float) -> Moments:
    """Return the trained statistics moved as the inputs' were: the mean by the difference, the
    variance by the ratio."""
    mean = trained[0] + after[0] - before[0]
    return mean, trained[1] * (after[1] + least) / (before[1] + least)


@contextmanager
def _watched(module: nn.Module, tell: Callable[[str, _BatchNorm, Moments], None]) -> Iterator[None]:
    """Tell the moments of what each batch norm reads, just before it computes."""

    def hook(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        others = [d for d in range(inputs[0].dim()) if d != 1]
        variance, mean = torch.var_mean(inputs[0], others, correction=0)
        tell(name, norm, (mean, variance))

    handles = [
        norm.register_forward_pre_hook(partial(hook, name)) for name, norm in _norms(module).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
