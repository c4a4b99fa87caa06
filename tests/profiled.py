"""Artifacts and a runtime for profiling tests: small, and as slow or broken as a test asks.

The runtime is a package named like LiteRT's that doubles its input, in a folder of its own with a
Python that finds it, so that the agent runs it as it would the real one.
"""

from __future__ import annotations

import json
import shlex
import stat
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from edgesdk.artifact import (
    GOLDEN,
    MANIFEST,
    MANIFEST_SHA256,
    PLAN,
    PROFILE_MAP,
    Manifest,
    Parity,
    TensorSpec,
    files_under,
    manifest_seal,
    read_manifest,
    sha256_of,
)
from edgesdk.document import to_json
from edgesdk.figure import Figure
from edgesdk.profiling.bench import Bench
from edgesdk.profiling.job import Job
from edgesdk.progress import Silent

MODEL = "model.tflite"
SPEC = TensorSpec(name="x", shape=(1, 3), dtype="float32", from_torch=(0, 1))

_RUNTIME = """
import os, time
import numpy as np

class Interpreter:
    def __init__(self, model_path, num_threads):
        self.made = time.monotonic()
        {load}

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{{"index": 0, "name": "x"}}]

    def get_output_details(self):
        return [{{"index": 1, "name": "y"}}]

    def set_tensor(self, index, array):
        self.x = np.array(array)

    def invoke(self):
        time.sleep(0.001)
        {invoke}
        self.y = 2 * self.x

    def get_tensor(self, index):
        return self.y
"""


def make_artifact(folder: Path, *, layer_of: dict[str, str] | None = None, **changes: Any) -> Path:
    """Write a sealed artifact whose file doubles three numbers, with fields of its manifest set."""
    folder.mkdir()
    (folder / MODEL).write_bytes(b"a model that doubles")
    (folder / PLAN).write_text("{}")
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    save_file({"input.0": inputs, "output.0": 2 * inputs}, folder / GOLDEN)
    operators = [{"op": "mul", "kind": "mul", "layer": "double", "predicted_ms": 0.5}]
    document = {"schema_version": 1, "runtime_op_to_layer": layer_of or {}, "operators": operators}
    (folder / PROFILE_MAP).write_text(json.dumps(document))
    fields: dict[str, Any] = {
        "task": "doubling", "device": "host", "target": "tflite", "delegate": "xnnpack",
        "runtime": "litert", "minimum_runtime": "2.3.0", "host_runtime": None, "threads": 1,
        "unit": "cpu",
        "scheme": "fp32", "batch_size": 1, "files": (MODEL,), "tool_versions": {}, "budget": (),
        "plan_sha256": sha256_of(folder / PLAN), "inputs": (SPEC,),
        "outputs": (replace(SPEC, name="y"),),
        "parity": Parity(
            status="verified", runtime="litert", samples=4, sqnr_db=200.0, maximum_error=0.0,
            top1_agreement=None, checks=(),
        ),
        "predicted": {"latency_ms": Figure(value=0.6, standing="predicted", low=0.3, high=1.2)},
    }  # fmt: skip
    fields |= dict.fromkeys(("input_specs", "output_specs", "operators"), ())
    fields |= {name: {} for name in ("baseline", "verified", "interpreted", "measured")}
    names = [path.relative_to(folder).as_posix() for path in files_under(folder)]
    sealed = {name: sha256_of(folder / name) for name in names}
    manifest = Manifest(sha256=sealed, **(fields | changes))
    (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder))
    return folder


def reseal(folder: Path) -> None:
    """Seal an artifact again, after a file of it was changed."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"] = {name: sha256_of(folder / name) for name in manifest["sha256"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder))


def make_python(
    folder: Path, *, load: str = "pass", invoke: str = "pass", version: str = "2.3.0"
) -> Path:
    """Write a Python that knows the doubling runtime; ``load`` and ``invoke`` are lines in it."""
    package = folder / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    text = _RUNTIME.format(load=load, invoke=invoke)
    (package / "interpreter.py").write_text(text)
    about = folder / f"ai_edge_litert-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: ai-edge-litert\nVersion: {version}\n")
    python = folder / "python"
    found = shlex.quote(str(folder))
    python.write_text(f'#!/bin/sh\nPYTHONPATH={found} exec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


def job_of(folder: Path, on: str = "local", **changes: Any) -> Job:
    """Return a job for the artifact in a folder; the changes are the job's or its bench's."""
    names = {field.name for field in fields(Bench)} & set(changes)
    bench = Bench(on=on, **{name: changes.pop(name) for name in names})
    job = Job(folder=folder, manifest=read_manifest(folder), progress=Silent(), bench=bench)
    return replace(job, **changes)
