"""Look at one changed network: what it loses against the original, on a task's data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.compress.depth import shortened
from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.compress.fold import folded_weights
from edgesdk.compress.recalibrate import NormReference, observe_norms, recalibrate
from edgesdk.compress.removal import disconnected
from edgesdk.document import from_builtins, to_builtins
from edgesdk.planner.divergence import measure_divergence, run_batches
from edgesdk.planner.simulation import simulate
from edgesdk.scheme import PALETTE_BITS, Scheme
from edgesdk.task import OutputSpec, Task, Tensors
from edgesdk.workers.parcel import Parcel, found_under, put_under
from edgesdk.workers.task_parcel import pack_task, unpack_task

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a network differs from the original: in the scheme it is rounded in, in channels that
    nobody reads (by their group's layer), or in blocks that are gone.

    ``scored``: whether the task's metric is asked for, too. ``repetition`` tells looks at the same
    network apart.
    """

    scheme: Scheme | None = None
    layer_schemes: Mapping[str, Scheme] = field(default_factory=dict)
    removed_channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    removed_blocks: tuple[str, ...] = ()
    scored: bool = False
    repetition: int = 0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a changed network loses: ``loss`` and ``disagreement`` as in ``Divergence``; the task's
    metric on validation data and on how many samples that is, None and 0 where not asked for."""

    loss: float
    disagreement: float | None
    score: float | None
    scored_samples: int


class Probing:
    """The job of looking at changed networks, each alone, on the same batches.

    ``norms_follow``: whether batch norms are moved with what a change removes. ``groups`` are
    those that channels may be removed of. ``in_scheme`` gives the network in a scheme where its
    layers cannot be rounded here; it does not cross to another process.
    """

    alone: ClassVar[bool] = False

    def __init__(
        self, task: Task, outputs: Sequence[OutputSpec], batches: Sequence[Tensors], *, target: str,
        groups: Sequence[ChannelGroup], norms_follow: bool,
        in_scheme: Callable[[Scheme], nn.Module] | None = None,
    ) -> None:  # fmt: skip
        self._task = task
        self._outputs = tuple(outputs)
        self._batches = list(batches)
        self._target = target
        self._groups = tuple(groups)
        self._norms_follow = norms_follow
        self._in_scheme = in_scheme

    def pack(self) -> Parcel:
        """Return the task, the batches and the groups."""
        assert self._in_scheme is None
        task = pack_task(self._task)
        values = {
            "task": task.values,
            "outputs": to_builtins(self._outputs),
            "batches": len(self._batches),
            "target": self._target,
            "groups": to_builtins(self._groups),
            "norms_follow": self._norms_follow,
        }
        tensors = put_under("task", task.tensors)
        for number, inputs in enumerate(self._batches):
            named = {str(place): tensor for place, tensor in enumerate(inputs)}
            tensors |= put_under(f"batch {number}", named)
        return Parcel(values=values, tensors=tensors)

    @classmethod
    def unpack(cls, parcel: Parcel) -> Self:
        """Return the job with the task loaded here."""
        values = parcel.values
        task = unpack_task(
            Parcel(values=values["task"], tensors=found_under("task", parcel.tensors))
        )
        batches = []
        for number in range(values["batches"]):
            named = found_under(f"batch {number}", parcel.tensors)
            batches.append(tuple(named[str(place)] for place in range(len(named))))
        return cls(
            task,
            from_builtins(tuple[OutputSpec, ...], values["outputs"], what="outputs"),
            batches,
            target=values["target"],
            groups=from_builtins(tuple[ChannelGroup, ...], values["groups"], what="groups"),
            norms_follow=values["norms_follow"],
        )

    def run(self, item: Parcel) -> Parcel:
        """Return the finding of a change."""
        change = from_builtins(Change, item.values, what="change")
        return Parcel(values=to_builtins(self.look_at(change)))

    def look_at(self, change: Change) -> Finding:
        """Return what the changed network loses."""
        changed = self._changed(change)
        divergence = measure_divergence(
            self._original, run_batches(changed, self._batches), self._outputs
        )
        score, samples = validation_score(self._task, changed) if change.scored else (None, 0)
        return Finding(
            loss=divergence.loss,
            disagreement=divergence.disagreement,
            score=score,
            scored_samples=samples,
        )

    @cached_property
    def _model(self) -> nn.Module:
        return copy.deepcopy(self._task.model).eval()

    @cached_property
    def _original(self) -> Tensors:
        return run_batches(self._model, self._batches)

    @cached_property
    def _norms(self) -> NormReference:
        return observe_norms(self._model, self._batches if self._norms_follow else ())

    @cached_property
    def _folded(self) -> dict[str, Tensor]:
        return folded_weights(self._model, self._task.example_inputs)

    def _changed(self, change: Change) -> nn.Module:
        if change.removed_blocks:
            return recalibrate(shortened(self._model, change.removed_blocks), self._norms)
        if change.removed_channels:
            # What pruning computes: nobody reads those channels, and batch norms follow.
            by_layer = {group.layer: group for group in self._groups}
            channels = [
                (by_layer[layer], list(gone)) for layer, gone in change.removed_channels.items()
            ]
            return recalibrate(disconnected(self._model, channels), self._norms)
        if change.scheme is None and not change.layer_schemes:
            return self._model
        if change.scheme is not None and self._in_scheme is not None:
            return self._in_scheme(change.scheme)
        schemes = {change.scheme, *change.layer_schemes.values()}
        return simulate(
            self._model,
            change.scheme or "fp32",
            self._batches,
            target=self._target,
            layer_schemes=change.layer_schemes,
            folded={} if schemes.isdisjoint(PALETTE_BITS) else self._folded,
        )


def validation_score(task: Task, module: nn.Module) -> tuple[float | None, int]:
    """Return the validation metric and the number of samples it was computed on."""
    if task.evaluate is None:
        return None, 0
    predict = model_predict(module, _CPU)
    samples = 0

    def counted(*inputs: Tensor) -> Tensor | Tensors:
        nonlocal samples
        samples += len(inputs[0])
        return predict(*inputs)

    return evaluate_task(task, counted, "validation"), samples
