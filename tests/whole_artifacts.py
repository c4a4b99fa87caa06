"""Artifacts for the tests of reports, written without any toolchain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgesdk.artifact import (
    GOLDEN,
    LAYERS,
    MANIFEST,
    MANIFEST_SHA256,
    PLAN,
    Check,
    Manifest,
    OpCount,
    Parity,
    files_under,
    manifest_seal,
    sha256_of,
)
from edgesdk.budget import Condition, judge
from edgesdk.document import to_json
from edgesdk.figure import Figure, FigureName, predicted
from edgesdk.host_runtime import HostRuntime
from edgesdk.layer_change import LayerChange, LayerChanges, LayerCost
from edgesdk.measurement import Measurement, OpTime, PerOp, RuntimeIdentity, SelfTest, Slice
from edgesdk.plan import Distil, Plan, Prune, PrunedGroup, Quantize, Rejected

MODEL = "model.tflite"
DEVICE = "board"


def figures(latency_ms: float, size: float, drop: float) -> dict[FigureName, Figure]:
    """Return the predictions of an option."""
    return {
        "latency_ms": predicted(latency_ms, error_factor=1.4, source="roofline"),
        "size_bytes": predicted(size, error_factor=1.03, source="weights and the container"),
        "memory_bytes": predicted(21_000.0, error_factor=1.05, source="tensor lifetimes"),
        "download_bytes": Figure(
            value=size, standing="predicted", low=0.0, high=size, source="at most the file"
        ),
        "accuracy_drop": Figure(
            value=drop, standing="predicted", low=-0.007, high=drop + 0.02, source="simulated"
        ),
    }


OPTIONS: Mapping[str, dict[FigureName, Figure]] = {
    "int8, pruned 27 %": figures(3.27, 49_475.2, 0.0277),
    "fp32": figures(27.3, 314_626.7, 0.0),
    "int8": figures(4.4, 92_603.2, 0.0013),
    "fp32, pruned 9 %": figures(24.6, 257_986.7, 0.0023),
    "int8, pruned 41 %": figures(1.98, 28_563.2, 0.1688),
    "int8, pruned 61 %": figures(1.33, 19_259.2, 0.3347),
}
CHOSEN = next(iter(OPTIONS))


def plan(**changes: Any) -> Plan:
    """Return a plan with one option taken and five rejected."""
    prune = Prune(
        ratio=0.27, channel_multiple=4, importance="taylor",
        groups=(PrunedGroup(layer="stages.0.conv1", width_before=16, removed=(1, 2, 3, 5)),),
    )  # fmt: skip
    distil = Distil(epochs=8, learning_rate=0.01, temperature=4.0, alpha=0.9, patience=3)
    made = Plan(
        task="digits",
        task_key="k",
        device=DEVICE,
        target="tflite",
        option=CHOSEN,
        scheme="int8",
        steps=(prune, distil, Quantize(scheme="int8")),
        steps_sha256="s",
        predicted=OPTIONS[CHOSEN],
        baseline={},
        reasons=(f"{CHOSEN} has the least expected loss among the options that fit.",),
        rejected=tuple(
            Rejected(option=name, predicted=values, reason="fits, but least loss is elsewhere")
            for name, values in OPTIONS.items()
            if name != CHOSEN
        ),
        front=(),
        prices=(),
        gap=0.0,
        seed=0,
    )
    return replace(made, **changes)


def _cost(width: int | None, bits: int, weights: float, latency_ms: float) -> LayerCost:
    return LayerCost(
        width=width, weight_bits=bits, macs=round(1000 * latency_ms), weight_bytes=weights,
        activation_bytes=784.0, predicted_ms=latency_ms,
    )  # fmt: skip


def layers(**changes: Any) -> LayerChanges:
    """Return four layers, one of them narrowed."""
    made = LayerChanges(
        scheme_before="fp32",
        scheme_after="int8",
        overhead_ms_before=0.1,
        overhead_ms_after=0.1,
        format_loss=0.000132,
        layers=(
            LayerChange(
                layer="conv1", kinds=("conv2d",),
                before=_cost(8, 32, 320.0, 1.1), after=_cost(8, 8, 104.0, 0.08),
            ),
            LayerChange(
                layer="stages.0.conv1", kinds=("conv2d",), expected_loss=0.0121,
                before=_cost(16, 32, 9280.0, 12.5), after=_cost(12, 8, 1776.0, 1.41),
            ),
            LayerChange(
                layer="stages.0", kinds=("add",),
                before=_cost(None, 32, 0.0, 0.3), after=_cost(None, 8, 0.0, 0.05),
            ),
            LayerChange(
                layer="", kinds=("adaptive_avg_pool2d",),
                before=_cost(None, 32, 0.0, 0.2), after=_cost(None, 8, 0.0, 0.02),
            ),
        ),
    )  # fmt: skip
    return replace(made, **changes)


def manifest(folder: Path, **changes: Any) -> Manifest:
    """Return a manifest of what lies in the folder: size and accuracy verified, latency not."""
    size = float((folder / MODEL).stat().st_size)
    verified: dict[FigureName, Figure] = {
        "size_bytes": Figure(value=size, standing="verified", source="bytes of the file"),
        "download_bytes": Figure(value=0.8 * size, standing="verified", source="deflate"),
        "memory_bytes": Figure(value=20_608.0, standing="verified", source="tflite-micro"),
        "accuracy": Figure(
            value=0.97, standing="verified", low=0.955, high=0.982, source="400 test samples"
        ),
        "accuracy_drop": Figure(value=0.0225, standing="verified", source="400 test samples"),
    }
    asked = (
        Condition(figure="latency_ms", limit=8.0),
        Condition(figure="size_bytes", limit=60_000.0, relative=0.19),
        Condition(figure="accuracy_drop", limit=0.03),
        Condition(figure="memory_bytes", limit=1_032_000.0, asked_by="device"),
    )
    fields: dict[str, Any] = {
        "task": "digits",
        "device": DEVICE,
        "target": "tflite",
        "delegate": "",
        "runtime": "tflite-micro",
        "minimum_runtime": "2.16",
        "host_runtime": HostRuntime(name="tflite-micro"),
        "threads": 1,
        "unit": "cpu",
        "scheme": "int8",
        "batch_size": 1,
        "files": (MODEL,),
        "sha256": {
            file.relative_to(folder).as_posix(): sha256_of(file) for file in files_under(folder)
        },
        "inputs": (),
        "outputs": (),
        "input_specs": (),
        "output_specs": (),
        "operators": (
            OpCount(op="CONV_2D", dtype="int8", where="builtin", count=5, weight_bytes=41_000),
        ),
        "tool_versions": {"torch": "2.13.0", "litert-torch": "0.10.0"},
        "plan_sha256": sha256_of(folder / PLAN),
        "parity": Parity(
            status="verified",
            runtime="tflite-micro",
            samples=64,
            sqnr_db=31.4,
            maximum_error=0.312,
            top1_agreement=0.984,
            checks=(Check(name="weights", passed=True, detail="5 of 5 are int8"),),
        ),
        "baseline": {
            "latency_ms": predicted(27.3, error_factor=1.4, source="roofline"),
            "size_bytes": Figure(value=314_640.0, standing="verified", source="bytes"),
            "accuracy": Figure(value=0.9925, standing="verified", source="400 test samples"),
        },
        "predicted": OPTIONS[CHOSEN],
        "verified": verified,
        "interpreted": {},
        "measured": {},
        "task_reference": "demo:digits",
    }
    fields |= changes
    sections = [fields[name] for name in ("measured", "verified", "interpreted", "predicted")]
    judged = {"budget": tuple(judge(condition, sections) for condition in asked)}
    return Manifest(**{**judged, **fields})


def write_artifact(
    folder: Path, *, made: Plan | None = None, changed: LayerChanges | None = None, **changes: Any
) -> Path:
    """Write a whole artifact and return its folder; ``changes`` are fields of the manifest."""
    folder.mkdir(parents=True)
    # As long as the option's file, and different from any other folder's.
    (folder / MODEL).write_bytes(f"{folder.name} ".encode() * (49_000 // (len(folder.name) + 1)))
    (folder / GOLDEN).write_bytes(b"vectors")
    (folder / PLAN).write_text(to_json(made or plan()), encoding="utf-8")
    (folder / LAYERS).write_text(to_json(changed or layers()), encoding="utf-8")
    seal(folder, manifest(folder, **changes))
    return folder


def seal(folder: Path, described: Manifest) -> None:
    """Write the manifest and its hash."""
    (folder / MANIFEST).write_text(to_json(described), encoding="utf-8")
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder), encoding="utf-8")


def measurement(folder: Path, **changes: Any) -> Measurement:
    """Return a measurement of the artifact's file: a minute that gets slower, and four layers."""
    made = Measurement(
        artifact_sha256=sha256_of(folder / MODEL),
        device=DEVICE,
        identity=RuntimeIdentity(
            runtime="tflite-micro", version="2.16", platform="mbed", unit="cpu", threads=1
        ),
        batch_size=1,
        warmup_runs=20,
        runs=300,
        load_ms=8.0,
        first_ms=5.0,
        minimum_ms=3.8,
        p50_ms=4.0,
        p90_ms=4.3,
        p99_ms=5.1,
        measured_by="edgesdk 0.1.0",
        sustained=tuple(
            Slice(start_s=float(second), median_ms=4.0 + (0.9 if second > 35 else 0), runs=240)
            for second in range(60)
        ),
        per_op=PerOp(
            ops=(
                OpTime(op="CONV_2D:0", layer="conv1", ms=0.31),
                OpTime(op="CONV_2D:1", layer="stages.0.conv1", ms=3.1),
                OpTime(op="ADD:0", layer="stages.0", ms=0.2),
                OpTime(op="QUANTIZE:0", layer=None, ms=0.1),
            ),
            hooked_ms=4.4,
            source="cycle counter",
        ),
        self_test=SelfTest(status="passed", samples=64),
    )
    return replace(made, **changes)
