"""The state of a training run, and its checkpoint: one file, replaced whole after every epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edgesdk.document import from_builtins, to_json
from edgesdk.errors import ArtifactError, OutputError

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is. ``run`` hashes what is trained, with what; epochs count from 1.

    ``best_epoch`` 0 stands for the weights training started from. ``best_score`` is what is
    maximised: the validation metric, or minus the training loss where there is none.
    ``stale_epochs`` counts those since the best score last rose, ``backoffs`` the halvings of the
    learning rate; ``batches`` is the number of batches in an epoch. ``stopped`` says why the run
    is over and is empty while it is not.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    run: str
    batches: int
    epoch: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    stale_epochs: int = 0
    backoffs: int = 0
    stopped: str = ""
    schema_version: Literal[1] = 1


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything the next epoch depends on: progress, weights, best weights, optimizer moments."""

    progress: Progress
    weights: Weights
    best: Weights
    optimizer: Mapping[int, Weights]


def weights_of(model: nn.Module) -> Weights:
    """Return copies of a model's parameters and buffers on the CPU, by name."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in named}


def set_weights(model: nn.Module, weights: Weights) -> None:
    """Copy ``weights`` into the model's parameters and buffers, whichever device they are on."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            tensor.copy_(weights[name])


def moments_of(optimizer: torch.optim.Optimizer) -> dict[int, Weights]:
    """Return copies of an optimizer's state tensors on the CPU, by parameter index."""
    state: Mapping[int, Mapping[str, Tensor]] = optimizer.state_dict()["state"]
    return {
        index: {name: tensor.detach().to("cpu", copy=True) for name, tensor in entry.items()}
        for index, entry in state.items()
    }


def set_moments(optimizer: torch.optim.Optimizer, moments: Mapping[int, Weights]) -> None:
    """Put copies of state tensors back into an optimizer."""
    copies = {i: {name: t.clone() for name, t in entry.items()} for i, entry in moments.items()}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": copies, "param_groups": groups})


def save_checkpoint(path: Path, state: TrainingState) -> None:
    """Write the state to one safetensors file, its progress as JSON in the file's metadata.

    The file is written beside ``path`` and renamed over it, so a reader finds the old state or
    the new one. Raises ``OutputError`` when it cannot be written.
    """
    tensors = tensors_of(state)
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={"progress": to_json(state.progress)})
        os.replace(partial, path)
    except (OSError, SafetensorError) as problem:
        with suppress(OSError):  # the folder itself may be what is missing
            partial.unlink()
        raise OutputError(
            f"the training checkpoint {path} cannot be written: {problem}",
            next_step="free some space, or choose another folder for edgesdk's cache",
        ) from problem


def read_checkpoint(path: Path, like: Weights) -> TrainingState:
    """Return the state saved at ``path``; ``like`` has the names, shapes and types expected of it.

    Raises ``ArtifactError`` for a file that is damaged or holds another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        progress = json.loads(metadata.get("progress", "null"))
    except (OSError, SafetensorError, json.JSONDecodeError) as problem:
        raise ArtifactError(f"{path} cannot be read: {problem}") from None
    state = state_from(from_builtins(Progress, progress, what=path.name), tensors, what=str(path))
    if not _alike(state.weights, like) or not _alike(state.best, like):
        raise ArtifactError(f"{path} holds the weights of another network")
    return state


def tensors_of(state: TrainingState) -> Weights:
    """Return all tensors of a state under names that tell what they are."""
    tensors = {f"weights/{name}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    for index, entry in state.optimizer.items():
        tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in entry.items()}
    return tensors


def state_from(progress: Progress, tensors: Mapping[str, Tensor], *, what: str) -> TrainingState:
    """Return the state that ``tensors_of`` took apart; ``ArtifactError`` for other tensors."""
    return TrainingState(
        progress=progress,
        weights=_under("weights/", tensors),
        best=_under("best/", tensors),
        optimizer=_moments(_under("optimizer/", tensors), what),
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> Weights:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _moments(tensors: Weights, what: str) -> dict[int, Weights]:
    moments: dict[int, Weights] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        if not index.isdigit():
            raise ArtifactError(f"{what} has the unexpected tensor optimizer/{key}")
        moments.setdefault(int(index), {})[name] = tensor
    return moments


def _alike(found: Weights, like: Weights) -> bool:
    def outline(weights: Weights) -> dict[str, Any]:
        return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}

    return outline(found) == outline(like)
