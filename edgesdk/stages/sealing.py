"""Write the artifact folder: files, golden vectors, plan, profiling map, report and manifest."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from edgesdk.artifact import (
    GRAPH,
    LAYERS,
    MANIFEST,
    MANIFEST_SHA256,
    PLAN,
    PROFILE_MAP,
    REPORT,
    Manifest,
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
from edgesdk.stages.request import Request
from edgesdk.stages.runnable import Runnable, describe_runnable, hashes, write_runnable
from edgesdk.stored_graph import write_graph
from edgesdk.target import Bundler
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
    proof = attempt.proof
    assert proof is not None
    emitted = proof.runnable.emitted
    write_runnable(proof.runnable, folder)
    developer_files = _write_developer_files(request, proof.runnable, folder)
    (folder / PLAN).write_text(to_json(attempt.plan), encoding="utf-8")
    graph = trace(emitted.model.module, emitted.model.example_inputs, name=request.task.name)
    write_graph(graph, folder / GRAPH)
    _write_profile_map(request, emitted, graph, folder / PROFILE_MAP)
    layers = compare_layers(original, graph, attempt.plan, request.runtime, sensitivity)
    (folder / LAYERS).write_text(to_json(layers), encoding="utf-8")
    described = replace(
        describe_runnable(request, proof.runnable, folder),
        developer_files=developer_files,
        plan_sha256=sha256_of(folder / PLAN),
        baseline=result.baseline,
        predicted=result.predicted,
        verified=result.verified,
        interpreted=result.interpreted,
        measured=result.measured,
        budget=result.verdicts,
        elsewhere=result.elsewhere,
        measurement=proof.measurement,
    )
    data = describe_artifact(folder, described, attempt.plan, layers, label="OUT")
    (folder / REPORT).write_text(render_text(data), encoding="utf-8")
    manifest = replace(described, sha256=hashes(folder))
    (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder), encoding="utf-8")
    return manifest


def _write_developer_files(request: Request, runnable: Runnable, folder: Path) -> tuple[str, ...]:
    """Write what the runtime's own tools read beside the files, and return its names."""
    emitted = runnable.emitted
    for name in emitted.emission.developer_files:
        shutil.copyfile(emitted.folder / name, folder / name)
    names = emitted.emission.developer_files
    if isinstance(request.target, Bundler):
        golden, outputs = runnable.golden, runnable.golden_outputs
        names += request.target.bundle(folder, emitted.emission, golden, outputs)
    return names


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
    model = emitted.model
    prediction = predict_latency(graph, request.runtime, model.scheme, model.layer_schemes)
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
