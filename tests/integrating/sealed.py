"""Sealed artifacts without a compiler: a manifest, golden vectors and a file of any bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from edgesdk.artifact import (
    GOLDEN,
    MANIFEST,
    MANIFEST_SHA256,
    PLAN,
    Manifest,
    TensorSpec,
    files_under,
    manifest_seal,
    read_manifest,
    sha256_of,
)
from edgesdk.document import from_builtins, to_builtins, to_json
from edgesdk.task import InputSpec, OutputSpec

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "examples/artifacts"


def sealed(
    folder: Path,
    *,
    like: str,
    inputs: Sequence[tuple[TensorSpec, InputSpec]] = (),
    outputs: Sequence[tuple[TensorSpec, OutputSpec]] = (),
    **changes: Any,
) -> Path:
    """Return a folder with a sealed artifact like a stored one, with other tensors and fields.

    Golden vectors are random; the model file is the stored one's.
    """
    source = ARTIFACTS / like
    manifest = replace(read_manifest(source), **changes)
    if inputs:
        tensors, meanings = zip(*inputs, strict=True)
        manifest = replace(manifest, inputs=tensors, input_specs=meanings)
    if outputs:
        tensors, meanings = zip(*outputs, strict=True)
        manifest = replace(manifest, outputs=tensors, output_specs=meanings)
    folder.mkdir(parents=True)
    for name in manifest.files:
        for file in files_under(source / name):
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    (folder / PLAN).write_bytes((source / PLAN).read_bytes())
    golden = {
        f"{kind}.{index}": _values(tensor)
        for kind, group in (("input", manifest.inputs), ("output", manifest.outputs))
        for index, tensor in enumerate(group)
    }
    safetensors.torch.save_file(golden, folder / GOLDEN)
    return seal(folder, manifest)


def seal(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest over whatever lies in the folder, every hash fitting."""
    for name in (MANIFEST, MANIFEST_SHA256):
        (folder / name).unlink(missing_ok=True)
    hashes = {p.relative_to(folder).as_posix(): sha256_of(p) for p in files_under(folder)}
    manifest = replace(manifest, sha256=hashes, plan_sha256=hashes[PLAN])
    (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder), encoding="utf-8")
    return folder


def changed(manifest: Manifest, **fields: Any) -> Manifest:
    """Return the manifest with JSON-ready fields in place of its own."""
    return from_builtins(
        Manifest, json.loads(json.dumps({**to_builtins(manifest), **fields})), what="manifest"
    )


def _values(tensor: TensorSpec) -> torch.Tensor:
    shape = [tensor.shape[tensor.from_torch.index(axis)] for axis in range(len(tensor.shape))]
    values = torch.randn(3 * shape[0], *shape[1:], generator=torch.Generator().manual_seed(1))
    return values if tensor.scale is not None or "float" in tensor.dtype else values.abs().long()
