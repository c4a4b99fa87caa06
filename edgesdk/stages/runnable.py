"""A runnable: an emitted model with what it answers, which another machine can run and check."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch

from edgesdk.artifact import GOLDEN, Manifest, Parity, files_under, sha256_of
from edgesdk.stages.emission import Emitted
from edgesdk.stages.request import Request
from edgesdk.task import Tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class Runnable:
    """An emitted model, its parity and its golden vectors.

    ``golden`` are up to 64 real inputs in PyTorch layout, ``golden_outputs`` what the artifact
    (or, where nothing here runs it, the float module) answers.
    """

    emitted: Emitted
    parity: Parity
    golden: Tensors
    golden_outputs: Tensors


def write_runnable(runnable: Runnable, folder: Path) -> None:
    """Write the runtime's files and the golden vectors into a folder."""
    emitted = runnable.emitted
    for name in (*emitted.emission.files, *emitted.emission.host_files):
        _copy(emitted.folder / name, folder / name)
    tensors = {f"input.{i}": t.contiguous() for i, t in enumerate(runnable.golden)}
    tensors |= {f"output.{i}": t.contiguous() for i, t in enumerate(runnable.golden_outputs)}
    safetensors.torch.save_file(tensors, folder / GOLDEN)


def describe_runnable(request: Request, runnable: Runnable, folder: Path) -> Manifest:
    """Return the manifest of a folder with a runnable: no plan, no budget and no figures yet."""
    emitted = runnable.emitted
    return Manifest(
        task=request.task.name,
        device=request.device.name,
        target=request.target.name,
        delegate=request.runtime.delegate,
        runtime=request.runtime.runtime,
        minimum_runtime=request.runtime.minimum_version,
        host_runtime=request.host_runtime,
        threads=request.runtime.threads,
        unit=request.runtime.unit,
        scheme=emitted.model.scheme,
        batch_size=request.task.batch_size,
        files=emitted.emission.files,
        sha256=hashes(folder),
        inputs=emitted.emission.inputs,
        outputs=emitted.emission.outputs,
        input_specs=request.inputs,
        output_specs=request.outputs,
        operators=emitted.operators,
        tool_versions=request.tool_versions,
        plan_sha256="",
        parity=runnable.parity,
        baseline={},
        predicted={},
        verified={},
        interpreted={},
        measured={},
        budget=(),
        device_commands=emitted.emission.device_commands,
        host_files=emitted.emission.host_files,
        layer_schemes=emitted.model.layer_schemes,
        task_reference=_without_folders(request.task.reference),
    )


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder by its name relative to it."""
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files_under(folder)}


def _copy(source: Path, destination: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, destination)
    else:
        shutil.copyfile(source, destination)


def _without_folders(reference: str) -> str:
    """Return a task's reference as it may be handed on: an absolute path tells who compiled it."""
    where, separator, name = reference.rpartition(":")
    return f"{Path(where).name}{separator}{name}" if Path(where).is_absolute() else reference
