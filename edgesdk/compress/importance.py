"""How much each channel matters: by what removing it does to the loss, or by its weights.

Taylor (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning"): when a set of
weights vanishes, the loss changes to first order by the sum of gradient times weight over it;
the square of that is the set's importance. Removing a channel is making every layer that reads
it ignore it (``removal`` proves as much), so the sets are a channel's input weights in each
layer that reads it; the squares are averaged over batches and summed over those layers. Scores
are squared units of the loss, and those of different groups compare directly. (Summing also over
the layers that give the channel counts one effect several times, and differently often from
group to group.)

Where batches have no labels, they are drawn from the model's own outputs. The divergence of a
model from itself has no gradient, but under labels drawn from its own distribution the expected
square of the change in log-likelihood is the Fisher information's quadratic form in the removed
weights: twice the growth of that divergence, to second order (Theis et al. 2018, "Faster gaze
prediction with dense networks and Fisher pruning"). Drawn labels give gradients of zero mean, so
that the square of a batch's mean stays in proportion to the mean of squares; the likeliest label
would give a confident model hardly any gradient.

Magnitude, where there is no data: the Euclidean norm of a channel's weights in a convolution or
linear layer, divided by that layer's mean over channels because layers have no common scale, and
summed over the layers the channel goes through: a residual stream's channels, which many layers
share, matter more than those inside one block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it
from torch.nn.modules.conv import _ConvNd

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.compress.channel_slices import Layer, Member, find_layer, sum_per_channel
from edgesdk.compress.dependency import prunable_copy
from edgesdk.compress.distil_loss import class_dimension, distillation_loss
from edgesdk.errors import TaskError
from edgesdk.plan import Distil
from edgesdk.task import Batch, OutputSpec, Task, output_tensors
from edgesdk.task_check import calibration_batches, training_batches
from edgesdk.user_code import user_code

_SAMPLES = 2048
# Squares are taken batch by batch, so every task is scored in batches of one size.
_SAMPLES_AT_ONCE = 32
_TASK_LOSS_ALONE = Distil(epochs=1, learning_rate=1.0, temperature=1.0, alpha=0.0, patience=1)


@dataclass(frozen=True, kw_only=True)
class ChannelScores:
    """The importance of every channel: ``per_group[layer][c]`` for channel ``c`` of that group.

    ``importance`` names the criterion and ``samples`` how many inputs it rests on.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    importance: Literal["taylor", "magnitude"]
    samples: int
    per_group: Mapping[str, tuple[float, ...]]


def score_groups(task: Task, groups: Sequence[ChannelGroup]) -> ChannelScores:
    """Return the importance of the groups' channels by the best data the task has.

    Training batches with targets: Taylor with the task's loss. Training batches without, or
    calibration inputs: Taylor with labels drawn from the model's own outputs (for outputs that
    are no class scores, from a normal distribution around them). No data: magnitude.
    At most 2,048 samples are used. Random choices, a data loader's included, follow
    ``task.seed``; the caller's random state stays as it was.

    Raises ``TaskError`` for what the task's data, model or loss raise, for data without a sample
    and for a loss that is not finite.
    """
    model = prunable_copy(task.model)
    slices = {g.layer: [_slice(model, g, member) for member in g.members] for g in groups}
    if task.training is None and task.calibration is None:
        magnitudes = {layer: _magnitude(parts) for layer, parts in slices.items()}
        return ChannelScores(importance="magnitude", samples=0, per_group=_plain(magnitudes))
    totals = {group.layer: torch.zeros(group.width) for group in groups}
    samples = batches = 0
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(task.seed)
        for batch in islice(_pieces(_data(task)), _SAMPLES // _SAMPLES_AT_ONCE):
            _backward(task, model, batch)
            for layer, parts in slices.items():
                totals[layer] += _squared_change(parts)
            samples, batches = samples + len(batch.inputs[0]), batches + 1
    if not samples:
        raise TaskError(
            f"task {task.name!r}: its data has no sample, so channels cannot be scored",
            expected="a new iterable with at least one batch at every call",
        )
    means = {layer: total / batches for layer, total in totals.items()}
    return ChannelScores(importance="taylor", samples=samples, per_group=_plain(means))


@dataclass(frozen=True, kw_only=True)
class _Slice:
    """One layer's part of a group: side channel ``index[i]`` belongs to channel ``channel[i]``."""

    layer: Layer
    member: Member
    index: Tensor
    channel: Tensor

    def parameters(self) -> dict[str, Tensor]:
        if isinstance(self.layer, nn.Parameter):
            return {"": self.layer}
        return {n: p for n, p in self.layer._parameters.items() if p is not None}

    def per_channel(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the values over each channel of the group, ``[width]``."""
        sums = sum_per_channel(values, self.layer, self.member.side, self.member.dim)
        total = torch.zeros(len(self.member.indices))
        return total.index_add(0, self.channel, sums[self.index])


def _slice(model: nn.Module, group: ChannelGroup, member: Member) -> _Slice:
    pairs = [(index, c) for c, indices in enumerate(member.indices) for index in indices]
    index, channel = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(1)
    return _Slice(
        layer=find_layer(model, member.layer), member=member, index=index, channel=channel
    )


@torch.no_grad()
def _squared_change(slices: Sequence[_Slice]) -> Tensor:
    """Return ``(sum of gradient * weight)^2`` of each channel, summed over what reads it."""
    # Where only bare parameters or functional operators read the channels, what gives them counts.
    readers = [part for part in slices if part.member.side == "in"] or slices
    changes = []
    for part in readers:
        weights = part.parameters().items()
        products = {name: p * p.grad for name, p in weights if p.grad is not None}
        changes.append(part.per_channel(products) ** 2)
    return torch.stack(changes).sum(0)


@torch.no_grad()
def _magnitude(slices: Sequence[_Slice]) -> Tensor:
    """Return each channel's norm over the usual norm in a layer, summed over weight layers."""
    total = torch.zeros(len(slices[0].member.indices))
    for part in slices:
        if isinstance(part.layer, _ConvNd | nn.Linear):
            squares = {name: p**2 for name, p in part.parameters().items()}
            norms = part.per_channel(squares).sqrt()
            total += norms / norms.mean().clamp_min(torch.finfo(norms.dtype).tiny)
    return total


def _plain(scores: Mapping[str, Tensor]) -> dict[str, tuple[float, ...]]:
    return {layer: tuple(score.tolist()) for layer, score in scores.items()}


def _data(task: Task) -> Iterator[Batch]:
    if task.training is not None:
        return training_batches(task)
    return (Batch(inputs=inputs) for inputs in calibration_batches(task))


def _pieces(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches in pieces of at most 32 samples."""
    for batch in batches:
        targets = () if batch.targets is None else (batch.targets,)
        tensors = [tensor.split(_SAMPLES_AT_ONCE) for tensor in (*batch.inputs, *targets)]
        for piece in zip(*tensors, strict=True):
            inputs = piece[: len(batch.inputs)]
            yield Batch(inputs=inputs, targets=piece[-1] if targets else None)


def _backward(task: Task, model: nn.Module, batch: Batch) -> None:
    """Leave the gradient of the loss on one batch in the model's parameters."""
    model.zero_grad(set_to_none=True)
    with user_code(f"task {task.name!r}: the model on a batch of its data"):
        outputs = model(*batch.inputs)
    if batch.targets is None:
        loss = _own_label_loss(task, outputs)
    else:
        teacher = (
            outputs.detach() if isinstance(outputs, Tensor) else tuple(o.detach() for o in outputs)
        )
        loss = distillation_loss(task, _TASK_LOSS_ALONE, outputs, teacher, batch.targets)
    if not math.isfinite(loss.item()):
        raise TaskError(
            f"task {task.name!r}: the loss of the original model is {loss.item()} on its own data",
            expected="a finite loss",
            next_step="check the loss function, and the data for values outside its domain",
        )
    with user_code(f"task {task.name!r}: the gradient of the loss"):
        loss.backward()  # type: ignore[no-untyped-call]


def _own_label_loss(task: Task, outputs: Any) -> Tensor:
    """Return the negative log-likelihood of labels drawn from the outputs' own distribution."""
    tensors = output_tensors(outputs)
    specs: tuple[OutputSpec | None, ...] = task.outputs or (None,) * len(tensors)
    losses = []
    for spec, output in zip(specs, tensors, strict=True):
        if not output.requires_grad:
            continue
        dim = class_dimension(spec, output, None)
        if dim is None:
            losses.append(F.mse_loss(output, output.detach() + torch.randn_like(output)))
            continue
        logits = output.movedim(dim, -1)
        if spec is not None and spec.kind == "probabilities":
            logits = logits.clamp_min(torch.finfo(logits.dtype).tiny).log()
        logits = logits.flatten(0, -2)
        labels = torch.multinomial(logits.detach().softmax(-1), 1).squeeze(-1)
        losses.append(F.cross_entropy(logits, labels))
    if not losses:
        raise TaskError(
            f"task {task.name!r}: no output of the model has a gradient",
            expected="a floating-point output computed outside of torch.no_grad",
        )
    return torch.stack(losses).sum()
