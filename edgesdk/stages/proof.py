"""Prove an emitted model: parity, accuracy, memory and latency on the runtime that runs it here."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from edgesdk.artifact import Check, Parity, files_under, size_bytes
from edgesdk.compress.evaluation import model_predict
from edgesdk.errors import ParityError
from edgesdk.figure import Figure, FigureName
from edgesdk.host_runtime import HostRuntime
from edgesdk.measurement import Measurement, latency_figure
from edgesdk.parity import compare, follows, gate
from edgesdk.running.adapter import artifact_predict
from edgesdk.running.process import ArtifactProcess
from edgesdk.running.timing import measure_alternating
from edgesdk.scheme import COARSE_SCHEMES
from edgesdk.stages.clocking import clock_on_bench
from edgesdk.stages.emission import Emitted
from edgesdk.stages.request import Request
from edgesdk.stages.runnable import Runnable
from edgesdk.stages.scoring import accuracy_figures, score_predict
from edgesdk.stages.twin import compare_with_twin
from edgesdk.target import Emission
from edgesdk.task import Split, Tensors, output_tensors

_PARITY_SAMPLES = 64
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Proof:
    """What is known of an emitted model after it was run here (or read, where it cannot run).

    ``predicted`` is what the target's compiler estimates of its file, and accuracy where only a
    simulation tells it. ``baseline_latency`` was measured in the same rounds as ``measurement``,
    or on a bench directly behind it. ``left_open`` names the figures this proof was told not to
    establish although it could have.
    """

    runnable: Runnable
    verified: Mapping[FigureName, Figure]
    interpreted: Mapping[FigureName, Figure]
    predicted: Mapping[FigureName, Figure]
    measured: Mapping[FigureName, Figure]
    split: Split | None
    left_open: Collection[FigureName]
    measurement: Measurement | None = None
    baseline_latency: Figure | None = None


def prove(
    request: Request, emitted: Emitted, *, baseline: Runnable | None, split: Split | None,
    measure: bool = True,
) -> Proof:  # fmt: skip
    """Return the proof of an emitted model; raises ``ParityError`` when it computes wrongly.

    ``split``: which data to score accuracy on, None for not at all. ``measure``: whether to clock
    it, where that is possible. ``baseline``: the float artifact to time in the same rounds.
    """
    host = request.host_runtime
    if host is None:
        proof = _prove_by_reading(request, emitted, split, measure=measure)
    else:
        proof = _prove_by_running(request, emitted, host, baseline, split, measure=measure)
    if request.bench is None or not measure:
        return proof
    in_turns = [proof.runnable, *([baseline] if baseline else [])]
    return _timed(proof, clock_on_bench(request, request.bench, in_turns))


def _timed(proof: Proof, timed: list[Measurement]) -> Proof:
    """Return the proof with the artifact's measurement and, behind it, the baseline's."""
    return replace(
        proof,
        measured={"latency_ms": latency_figure(timed[0])},
        measurement=timed[0],
        baseline_latency=latency_figure(timed[1]) if len(timed) > 1 else None,
    )


def _prove_by_running(
    request: Request, emitted: Emitted, host: HostRuntime, baseline: Runnable | None,
    split: Split | None, *, measure: bool,
) -> Proof:  # fmt: skip
    """Prove by what runs the file here, and clock it where this machine is the device."""
    timed: list[Measurement] = []
    with ExitStack() as stack:
        process = stack.enter_context(_started(request, emitted))
        golden = emitted.model.samples(_PARITY_SAMPLES)
        outputs = output_tensors(artifact_predict(process)(*golden))
        # Once, for what is sealed: a second runtime takes a second process.
        twin = compare_with_twin(process, golden, request.target) if split == "test" else None
        parity = _gated_parity(request, emitted, host, golden, outputs, twin=twin)
        verified = size_figures(request, emitted) | _memory(process, host)
        accuracy: dict[FigureName, Figure] = {}
        if split is not None and request.task.evaluate is not None:
            request.progress.step(f"Scoring the artifact on {split} data")
            score = score_predict(request, artifact_predict(process), split, emitted.key)
            accuracy = accuracy_figures(
                request, score, split, standing=host.standing, source=told_by(process, host)
            )
        if request.is_clocked_here and measure:
            request.progress.step("Measuring latency")
            others = [stack.enter_context(_started(request, baseline.emitted))] if baseline else []
            timed = measure_alternating(
                [process, *others], request.task.example_inputs, device=request.device.name
            )
    proof = Proof(
        runnable=Runnable(emitted=emitted, parity=parity, golden=golden, golden_outputs=outputs),
        verified=verified | (accuracy if host.standing == "verified" else {}),
        interpreted=accuracy if host.standing == "interpreted" else {},
        predicted=emitted.emission.estimates,
        measured={},
        split=split,
        left_open=_left_open(request, split, measure=measure),
    )
    return _timed(proof, timed) if timed else proof


def _left_open(request: Request, split: Split | None, *, measure: bool) -> frozenset[FigureName]:
    left_open: set[FigureName] = set()
    if split is None and request.task.evaluate is not None:
        left_open |= {"accuracy", "accuracy_drop"}
    if not measure and request.can_measure:
        left_open.add("latency_ms")
    return frozenset(left_open)


def _started(request: Request, emitted: Emitted) -> ArtifactProcess:
    return start(request, emitted.folder, emitted.emission)


def start(request: Request, folder: Path, emission: Emission) -> ArtifactProcess:
    """Return the (not yet entered) process that runs emitted files here."""
    assert request.host_runtime is not None
    return ArtifactProcess(
        target=request.target.name,
        folder=folder,
        emission=emission,
        host_runtime=request.host_runtime.name,
        threads=request.runtime.threads,
    )


def _gated_parity(
    request: Request, emitted: Emitted, host: HostRuntime, golden: Tensors, outputs: Tensors, *,
    twin: Check | None,
) -> Parity:  # fmt: skip
    reference = output_tensors(model_predict(emitted.model.module, _CPU)(*golden))
    checks = (*emitted.checks, *_followed(request, emitted, golden, outputs))
    checks += (twin,) if twin else ()
    parity = compare(reference, outputs, request.outputs, checks, runtime=host)
    try:
        gate(parity, emitted.model.coarsest)
    except ParityError as problem:
        problem.model = emitted.model  # for whoever looks for the layer that goes wrong
        raise
    return parity


def _followed(
    request: Request, emitted: Emitted, golden: Tensors, outputs: Tensors
) -> tuple[Check, ...]:
    """Return the comparison with the quantized network where rounding alone may near the signal.

    None where the target has no such network; it then compares the file's weights when reading it.
    """
    if emitted.model.coarsest not in COARSE_SCHEMES:
        return ()
    simulation = request.target.simulate(emitted.model)
    return () if simulation is None else (follows(output_tensors(simulation(*golden)), outputs),)


def told_by(process: ArtifactProcess, host: HostRuntime) -> str:
    """Return who computed, in words: runtime, version and build, and what it is not."""
    identity = process.identity
    told = f"{identity.runtime} {identity.version}, {identity.platform} build"
    return f"{told}; {host.note}" if host.note else told


def _memory(process: ArtifactProcess, host: HostRuntime) -> dict[FigureName, Figure]:
    if process.memory_bytes is None or host.standing != "verified":
        return {}
    source = told_by(process, host)
    figure = Figure(value=float(process.memory_bytes), standing="verified", source=source)
    return {"memory_bytes": figure}


def size_figures(request: Request, emitted: Emitted) -> dict[FigureName, Figure]:
    """Return the file's real bytes, as stored, as flashed and after entropy coding."""
    size = float(size_bytes(emitted.folder, emitted.emission.files))
    real = Figure(value=size, standing="verified", source="bytes of the emitted files")
    coded = float(deflated_bytes(emitted.folder, emitted.emission.files))
    figures: dict[FigureName, Figure] = {
        "size_bytes": real,
        "download_bytes": Figure(value=coded, standing="verified", source="deflate, level 9"),
    }
    if not request.runtime.weights_in_ram:
        figures["flash_bytes"] = real
    return figures


def deflated_bytes(folder: Path, names: tuple[str, ...]) -> int:
    """Return the size of the files as a zip archive deflated at level 9, what APK and IPA use."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in names:
            for file in files_under(folder / name):
                archive.write(file, file.relative_to(folder).as_posix())
    return buffer.tell()


def _prove_by_reading(
    request: Request, emitted: Emitted, split: Split | None, *, measure: bool
) -> Proof:
    """Prove by reading alone; accuracy is predicted by simulating the file's arithmetic."""
    parity = Parity(
        status="not verified",
        runtime=f"nothing on this machine runs {request.runtime.runtime} files for "
        f"{request.runtime.delegate}",
        samples=0,
        sqnr_db=None,
        maximum_error=None,
        top1_agreement=None,
        checks=emitted.checks,
    )
    gate(parity, emitted.model.coarsest)
    golden = emitted.model.samples(_PARITY_SAMPLES)
    predicted: dict[FigureName, Figure] = {}
    if split is not None and request.task.evaluate is not None:
        predicted = _simulated_accuracy(request, emitted, split)
    outputs = output_tensors(model_predict(emitted.model.module, _CPU)(*golden))
    return Proof(
        runnable=Runnable(emitted=emitted, parity=parity, golden=golden, golden_outputs=outputs),
        verified=size_figures(request, emitted),
        interpreted={},
        predicted={**emitted.emission.estimates, **predicted},
        measured={},
        split=split,
        left_open=_left_open(request, split, measure=measure),
    )


def _simulated_accuracy(
    request: Request, emitted: Emitted, split: Split
) -> dict[FigureName, Figure]:
    simulation = request.target.simulate(emitted.model)
    if simulation is None:
        return {}
    request.progress.step(f"Simulating the artifact on {split} data")
    score = score_predict(request, simulation, split, f"simulated {emitted.key}")
    source = "simulated in PyTorch, not run on the device"
    return accuracy_figures(request, score, split, standing="predicted", source=source)
