"""A task's way to a worker: by its reference, with its weights; its functions never cross."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgesdk.compress.pooling import fit_windows
from edgesdk.compress.training_state import Weights, set_weights, weights_of
from edgesdk.errors import UsageError, WorkerError
from edgesdk.target import installed_version
from edgesdk.task import Task
from edgesdk.task_source import load_task
from edgesdk.workers.parcel import Parcel


def check_can_cross(task: Task) -> None:
    """Raise ``UsageError`` for a task made in Python: no other process can find its functions."""
    if not task.reference:
        raise UsageError(
            f"the task {task.name!r} is an object of this process, and workers have others",
            expected="a task that workers can load: by its reference, as 'task.py:function'",
            next_step="name the task instead of passing it, or leave workers at 1",
        )


def pack_task(task: Task) -> Parcel:
    """Return the parcel of a task that was loaded from a reference; ``UsageError`` for another."""
    check_can_cross(task)
    values = {
        "reference": task.reference,
        "name": task.name,
        "code": _code_sha256(task),
        "versions": _versions(),
    }
    return Parcel(values=values, tensors=weights_of(task.model))


def unpack_task(parcel: Parcel) -> Task:
    """Return the task, loaded here from its reference, with the weights it had over there.

    Raises ``WorkerError`` where code, network or versions are not those of the other side.
    """
    values: dict[str, Any] = parcel.values
    if values["versions"] != _versions():
        raise WorkerError(
            f"a worker has {_listed(_versions())}", expected=_listed(values["versions"])
        )
    loaded = load_task(_without_weights(values["reference"]))
    if _code_sha256(loaded) != values["code"]:
        raise WorkerError(
            f"{values['reference']} is another task where a worker loads it, in {os.getcwd()}",
            expected="the same text, version and seed on every machine",
            next_step="bring the task's file up to date there, or share its folder",
        )
    model, _ = fit_windows(loaded.model, loaded.example_inputs)
    if _outline(weights_of(model)) != _outline(dict(parcel.tensors)):
        raise WorkerError(
            f"{values['reference']} gives a network of other shapes in each process",
            expected="the same network each time the task is loaded",
        )
    set_weights(model, dict(parcel.tensors))
    return replace(loaded, name=values["name"], model=model)


def _without_weights(reference: str) -> str:
    """Return what loads a model folder's network alone: its weights are in the parcel."""
    path = Path(reference)
    is_folder = path.is_dir() or path.name == "config.json"
    return f"random:{reference}" if is_folder else reference


def _code_sha256(task: Task) -> str:
    text = "\0".join((task.source, task.version, str(task.seed)))
    return hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    """Return the versions that answers depend on."""
    return {
        "edgesdk": str(installed_version("edgesdk")),
        "torch": str(torch.__version__),
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {found}" for name, found in versions.items())


def _outline(weights: Weights) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
