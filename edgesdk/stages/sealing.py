"""Write the artifact folder: files, golden vectors, plan, profiling map, report and manifest."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from edgesdk.artifact import (
    GOLDEN,
    GRAPH,
    LAYERS,
    MANIFEST,
    MANIFEST_SHA256,
    PLAN,
    PROFILE_MAP,
    REPORT,
    Manifest,
    files_under,
    manifest_seal,
    sha256_of,
)
from edgesdk.cost.latency import predict_latency
from edgesdk.document import to_json
from edgesdk.errors import ArtifactError
from edgesdk.graph import OpGraph
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.report.describe import describe_artifact
from edgesdk.report.text import render_text
from edgesdk.result import CompileResult
from edgesdk.stages.attempt import Attempt
from edgesdk.stages.emission import Emitted
from edgesdk.stages.layers import compare_layers
from edgesdk.stages.proof import Proof
from edgesdk.stages.request import Request
from edgesdk.stored_graph import write_graph
from edgesdk.task import Tensors
from edgesdk.trace import trace


def seal(
    request: Request, attempt: Attempt, result: CompileResult, folder: Path, *,
    original: OpGraph, sensitivity: Sensitivity | None,
) -> Manifest:  # fmt: skip
    """Fill an empty folder with a finished artifact and return its manifest.

    ``original`` is the graph before compression; without a ``sensitivity`` (a replayed plan) what
    each layer was expected to lose stays unsaid.
    """
    emitted, proof = attempt.emitted, attempt.proof
    assert emitted is not None
    assert proof is not None
    for name in emitted.emission.files:
        _copy(emitted.folder / name, folder / name)
    (folder / PLAN).write_text(to_json(attempt.plan), encoding="utf-8")
    _write_golden(proof, folder / GOLDEN)
    graph = trace(emitted.model.module, emitted.model.example_inputs, name=request.task.name)
    write_graph(graph, folder / GRAPH)
    _write_profile_map(request, emitted, graph, folder / PROFILE_MAP)
    layers = compare_layers(original, graph, attempt.plan, request.runtime, sensitivity)
    (folder / LAYERS).write_text(to_json(layers), encoding="utf-8")
    described = _describe(request, result, emitted, proof, folder)
    data = describe_artifact(folder, described, attempt.plan, layers, label="OUT")
    (folder / REPORT).write_text(render_text(data), encoding="utf-8")
    manifest = replace(described, sha256=_hashes(folder))
    (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder), encoding="utf-8")
    return manifest


def _copy(source: Path, destination: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, destination)
    else:
        shutil.copyfile(source, destination)


def _write_golden(proof: Proof, path: Path) -> None:
    tensors = {f"input.{i}": t.contiguous() for i, t in enumerate(proof.golden)}
    tensors |= {f"output.{i}": t.contiguous() for i, t in enumerate(proof.golden_outputs)}
    safetensors.torch.save_file(tensors, path)


def read_golden(path: Path) -> tuple[Tensors, Tensors]:
    """Return the golden inputs and outputs, ``[N, ...]`` each in PyTorch layout.

    Raises ``ArtifactError`` for a file that is not such.
    """
    try:
        stored = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as problem:
        raise ArtifactError(f"{path.name} cannot be read: {problem}") from None
    # By number: as text input.10 comes before input.2.
    columns = [
        [stored[f"{kind}.{index}"] for index in range(len(stored)) if f"{kind}.{index}" in stored]
        for kind in ("input", "output")
    ]
    if not all(columns):
        raise ArtifactError(f"{path.name} holds no golden inputs and outputs: {sorted(stored)}")
    return tuple(columns[0]), tuple(columns[1])


def _write_profile_map(request: Request, emitted: Emitted, graph: OpGraph, path: Path) -> None:
    """Write what joins a runtime's per-operator times to model layers and predicted costs."""
    prediction = predict_latency(graph, request.runtime, emitted.model.scheme)
    layers = [
        {"op": cost.op, "kind": cost.kind, "layer": cost.layer, "predicted_ms": cost.latency_ms}
        for cost in prediction.per_op
    ]
    document = {
        "schema_version": 1,
        "runtime_op_to_layer": dict(emitted.emission.layer_of),
        "operators": layers,
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _describe(
    request: Request, result: CompileResult, emitted: Emitted, proof: Proof, folder: Path
) -> Manifest:
    return Manifest(
        task=request.task.name,
        device=request.device.name,
        target=request.target.name,
        delegate=request.runtime.delegate,
        runtime=request.runtime.runtime,
        minimum_runtime=request.runtime.minimum_version,
        host_runtime=request.host_runtime,
        threads=request.runtime.threads,
        scheme=emitted.model.scheme,
        batch_size=request.task.batch_size,
        files=emitted.emission.files,
        sha256=_hashes(folder),
        inputs=emitted.emission.inputs,
        outputs=emitted.emission.outputs,
        input_specs=request.inputs,
        output_specs=request.outputs,
        operators=emitted.operators,
        tool_versions=request.tool_versions,
        plan_sha256=sha256_of(folder / PLAN),
        parity=proof.parity,
        baseline=result.baseline,
        predicted=result.predicted,
        verified=result.verified,
        interpreted=result.interpreted,
        measured=result.measured,
        budget=result.verdicts,
        device_commands=emitted.emission.device_commands,
        measurement=proof.measurement,
        task_reference=_without_folders(request.task.reference),
    )


def _without_folders(reference: str) -> str:
    """Return a task's reference as it may be handed on: an absolute path tells who compiled it."""
    where, separator, name = reference.rpartition(":")
    return f"{Path(where).name}{separator}{name}" if Path(where).is_absolute() else reference


def _hashes(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files_under(folder)}
