"""Refine a device's profile with latencies that were measured on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgesdk.artifact import GRAPH, Manifest, inside, read_manifest, sha256_of
from edgesdk.cost.calibration import calibrate
from edgesdk.cost.latency import predict_latency
from edgesdk.device import DeviceProfile
from edgesdk.errors import MeasurementError
from edgesdk.measurement import Measurement
from edgesdk.measurement_file import read_measurement
from edgesdk.scheme import Scheme
from edgesdk.stored_graph import read_graph

LEAST_MEASUREMENTS = 3
"""Artifacts of one target and scheme: with fewer, a scale and a floor cannot be told apart and
nothing shows whether they agree."""

Measurable = tuple[str, str, Scheme]
"""What a measurement corrects: a target's files for a delegate in a scheme."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An artifact and what was measured of it on the device."""

    folder: Path
    manifest: Manifest
    measurement: Measurement


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """The refined profile, the pairs behind it, and which coefficients were kept and why.

    ``pairs`` holds predicted (by the old profile) and measured milliseconds, by target, delegate
    and scheme.
    """

    profile: DeviceProfile
    pairs: Mapping[Measurable, tuple[tuple[float, float], ...]]
    kept: Mapping[Measurable, str]


def read_measured(
    paths: Sequence[Path], stored: Sequence[Measurement] = ()
) -> tuple[Measured, ...]:
    """Return the measured artifacts among paths of artifact folders and measurement files.

    A folder's measurement is the one in a file that names the hash of its model, else the last of
    the ``stored`` ones with that hash on the artifact's runtime, unit and threads, else the one
    in its manifest. Raises ``MeasurementError`` for a folder without measurement and a measurement
    without folder, ``ArtifactError`` for a damaged folder.
    """
    manifests = {path: read_manifest(path) for path in paths if path.is_dir()}
    files = [(path, read_measurement(path)) for path in paths if not path.is_dir()]
    hashes = {sha256_of(inside(path, m.files[0])): path for path, m in manifests.items()}
    measured: dict[Path, Measurement] = {}
    for path, measurement in files:
        if measurement.artifact_sha256 not in hashes:
            raise MeasurementError(
                f"{path} is about an artifact with SHA-256 {measurement.artifact_sha256[:12]}..., "
                "which is in none of the folders given",
                next_step="name that artifact's folder with --from too",
            )
        measured[hashes[measurement.artifact_sha256]] = measurement
    found = []
    for digest, path in hashes.items():
        manifest = manifests[path]
        measurement_here = (
            measured.get(path) or _last_stored(stored, digest, manifest) or manifest.measurement
        )
        if measurement_here is None:
            raise MeasurementError(
                f"{path} was not measured",
                expected="a measurement in its manifest, in the store or in a file",
                next_step=f"edgesdk profile {path} --on RUNNER, or name a file with --from too",
            )
        if measurement_here.artifact_sha256 != digest:
            raise MeasurementError(f"the measurement in {path} is about another file")
        found.append(Measured(folder=path, manifest=manifest, measurement=measurement_here))
    return tuple(found)


def _last_stored(
    stored: Sequence[Measurement], digest: str, manifest: Manifest
) -> Measurement | None:
    """Return the last measurement of the file as the artifact is meant to run, and running well,
    None without one."""
    runtime, unit, threads = manifest.runtime, manifest.unit, manifest.threads
    found = [
        item
        for item in stored
        if item.artifact_sha256 == digest
        and not item.answers_wrongly
        and not item.identity.departures(runtime=runtime, unit=unit, threads=threads)
    ]
    return found[-1] if found else None


def refine(device: DeviceProfile, measured: Sequence[Measured]) -> Refinement:
    """Return the profile corrected by measurements of three or more artifacts a scheme.

    Raises ``MeasurementError`` for a measurement of another device, runtime or thread count, and
    ``ArtifactError`` for an artifact without the graph it was emitted from.
    """
    pairs: dict[Measurable, tuple[tuple[float, float], ...]] = {}
    for item in measured:
        pair = (_predicted_ms(device, item), item.measurement.p50_ms)
        key = (item.manifest.target, item.manifest.delegate, item.manifest.scheme)
        pairs[key] = (*pairs.get(key, ()), pair)
    kept = {
        key: f"{len(found)} measurement(s), {LEAST_MEASUREMENTS} are needed"
        for key, found in pairs.items()
        if len(found) < LEAST_MEASUREMENTS
    }
    refined = device
    for key, found in pairs.items():
        if key not in kept:
            target, delegate, scheme = key
            refined = calibrate(refined, target, scheme, found, delegate=delegate)
    return Refinement(profile=replace(refined, calibrated_from=device.name), pairs=pairs, kept=kept)


def _predicted_ms(device: DeviceProfile, item: Measured) -> float:
    manifest, measurement = item.manifest, item.measurement
    if measurement.device != device.name:
        raise MeasurementError(
            f"{item.folder} was measured on {measurement.device!r}",
            expected=f"measurements of {device.name!r}",
        )
    if measurement.answers_wrongly:
        raise MeasurementError(
            f"{item.folder} failed its self-test on {device.name}: its times are of wrong answers",
            expected="measurements of artifacts that compute there what they compute here",
        )
    runtime = device.runtime_for(manifest.target, manifest.delegate)
    departures = measurement.identity.departures(
        runtime=runtime.runtime, unit=runtime.unit, threads=runtime.threads
    )
    if departures:
        raise MeasurementError(
            f"{item.folder} was measured {'; '.join(departures)}",
            expected="measurements as the profile has it",
        )
    graph = read_graph(inside(item.folder, GRAPH))
    layers = manifest.layer_schemes
    return predict_latency(graph, runtime, manifest.scheme, layers).total.value
