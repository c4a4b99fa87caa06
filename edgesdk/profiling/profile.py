"""Profile an artifact: measure it with a runner, refuse what is about something else, join it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.artifact import PROFILE_MAP, Manifest, inside, sha256_of
from edgesdk.document import parse_json, to_builtins
from edgesdk.errors import ArtifactError, MeasurementError
from edgesdk.figure import Figure
from edgesdk.measurement import Measurement, RuntimeIdentity
from edgesdk.profiling.job import Job
from edgesdk.profiling.runners import find_in_turns, find_runner


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """A model layer (or what no layer is known of), predicted and measured; None: not known."""

    layer: str | None
    predicted_ms: float | None
    measured_ms: float | None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A measurement beside what was predicted for the same device.

    ``predicted`` is None where the numbers stand for another device, runtime, unit or number of
    threads than the artifact's.
    """

    artifact: Path
    manifest: Manifest
    measurement: Measurement
    predicted: Figure | None
    layers: tuple[LayerTime, ...]

    @property
    def hook_overhead(self) -> float | None:
        """How much longer an inference took while operators were timed; 0.1 is 10 %.

        None where no operator was timed, or where the profiler watched all inferences.
        """
        per_op = self.measurement.per_op
        if per_op is None or per_op.hooked_ms == self.measurement.p50_ms:
            return None
        return per_op.hooked_ms / self.measurement.p50_ms - 1

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "status": "ok",
            "artifact": str(self.artifact),
            "measurement": to_builtins(self.measurement),
            "predicted": to_builtins(self.predicted) if self.predicted else None,
            "hook_overhead": self.hook_overhead,
            "layers": [to_builtins(layer) for layer in self.layers],
        }


def profile_artifact(job: Job) -> Profile:
    """Return the profile of an artifact on its bench; raises as ``measure_artifact``."""
    return join_profile(job.folder, job.manifest, measure_artifact(job))


def measure_artifact(job: Job) -> Measurement:
    """Return what the job's bench measured.

    Raises ``MeasurementError`` where it could not be measured, or where the answer is about another
    file or runtime than the one asked for.
    """
    runner, place = find_runner(job.bench.on)
    measurement = runner(place, job)
    check_belongs(measurement, job.manifest, job.folder)
    return measurement


def measure_in_turns(jobs: Sequence[Job]) -> list[Measurement]:
    """Return what their common bench measured: in the same rounds, where it has a way to.

    Elsewhere one is measured directly behind the other. Raises as ``measure_artifact``.
    """
    on = jobs[0].bench.on
    in_turns = find_in_turns(on)
    if in_turns is None:
        return [measure_artifact(job) for job in jobs]
    _, place = find_runner(on)
    measurements = in_turns(place, jobs)
    for job, measurement in zip(jobs, measurements, strict=True):
        check_belongs(measurement, job.manifest, job.folder)
    return measurements


def check_belongs(measurement: Measurement, manifest: Manifest, folder: Path) -> None:
    """Raise ``MeasurementError`` unless the measurement is of this artifact, on its runtime."""
    digest = sha256_of(inside(folder, manifest.files[0]))
    if measurement.artifact_sha256 != digest:
        raise MeasurementError(
            f"the measurement is about a file with SHA-256 {measurement.artifact_sha256[:12]}..., "
            f"{folder / manifest.files[0]} has {digest[:12]}...",
            next_step="measure this artifact, or name the folder of the other one",
        )
    _check_runtime(measurement.identity, manifest)
    if measurement.batch_size != manifest.batch_size:
        raise MeasurementError(
            f"the measurement is of batches of {measurement.batch_size}",
            expected=f"batches of {manifest.batch_size}, as the artifact has",
        )


def _check_runtime(identity: RuntimeIdentity, manifest: Manifest) -> None:
    if (manifest.runtime, identity.runtime) == ("litert", "litert.js"):
        return  # it runs the same files, and its versions are other ones: no use in comparing
    if identity.runtime != manifest.runtime:
        raise MeasurementError(
            f"the measurement is of {identity.runtime} {identity.version}",
            expected=f"{manifest.runtime}, which the artifact is for",
        )
    version, needed = _numbers(identity.version), _numbers(manifest.minimum_runtime)
    if version and version < needed:
        raise MeasurementError(
            f"{identity.runtime} {identity.version} ran it, the artifact needs "
            f"{manifest.minimum_runtime} or newer",
            next_step=f"install {manifest.runtime} {manifest.minimum_runtime} on the device",
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0])]


def join_profile(folder: Path, manifest: Manifest, measurement: Measurement) -> Profile:
    """Return the measurement joined with the artifact's predictions, layer by layer."""
    is_same_device = manifest.is_of_its_device(measurement)
    predicted: dict[str | None, float] = defaultdict(float)
    for operator in _predicted_operators(folder) if is_same_device else []:
        predicted[str(operator["layer"]) or None] += float(operator["predicted_ms"])
    measured: dict[str | None, float] = defaultdict(float)
    for op in measurement.per_op.ops if measurement.per_op else ():
        measured[op.layer] += op.ms
    layers = [name for name in dict.fromkeys([*predicted, *measured]) if name is not None]
    unknown = [None] if None in predicted or None in measured else []
    return Profile(
        artifact=folder,
        manifest=manifest,
        measurement=measurement,
        predicted=manifest.predicted.get("latency_ms") if is_same_device else None,
        layers=tuple(
            LayerTime(layer=name, predicted_ms=predicted.get(name), measured_ms=measured.get(name))
            for name in [*layers, *unknown]
        ),
    )


def _predicted_operators(folder: Path) -> list[dict[str, Any]]:
    path = inside(folder, PROFILE_MAP)
    document = parse_json(path.read_bytes(), what=PROFILE_MAP, error=ArtifactError)
    try:
        return [
            {"layer": str(item["layer"]), "predicted_ms": float(item["predicted_ms"])}
            for item in document["operators"]
        ]
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(f"{PROFILE_MAP} lists no operators with their predicted_ms") from None
