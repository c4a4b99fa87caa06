"""Read the artifacts and measurements that a report is about: hashes first, then every document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgesdk.artifact import LAYERS, PLAN, Manifest, inside, read_manifest, sha256_of
from edgesdk.document import read_json
from edgesdk.errors import ArtifactError, MeasurementError, UsageError
from edgesdk.layer_change import LayerChanges
from edgesdk.measurement import Measurement
from edgesdk.measurement_file import read_measurement
from edgesdk.plan import Plan
from edgesdk.profiling.store import Stored
from edgesdk.report.data import ArtifactData, ReportData
from edgesdk.report.describe import describe_artifact, describe_report

# A network of ten thousand layers stays below half of it.
LIMIT_BYTES = 32_000_000
_DOCUMENTS = ("manifest.json", PLAN, LAYERS)


def read_report(
    folders: Sequence[Path], measurements: Sequence[Path] = (), stored: Sequence[Stored] = ()
) -> ReportData:
    """Return the data of a report on those artifact folders.

    Each measurement file joins the artifact whose file it timed, and so does the last of the
    ``stored`` measurements from each place. Raises ``ArtifactError`` for a folder that is damaged
    or tampered with, ``MeasurementError`` for a file that is no measurement or is one of none of
    the artifacts, ``UsageError`` where a folder is given twice.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("an artifact folder is given twice", expected="each folder once")
    manifests = [_read_manifest(folder) for folder in folders]
    digests = [sha256_of(f / m.files[0]) for f, m in zip(folders, manifests, strict=True)]
    timed = [_last_stored(stored, digest) for digest in digests]
    for path in measurements:
        measurement = read_measurement(path)
        for index in _owners(path, measurement, folders, digests):
            timed[index].setdefault(measurement, None)
    parts = zip(folders, manifests, _labels(folders), timed, strict=True)
    return describe_report([_describe(*part) for part in parts])


def _read_manifest(folder: Path) -> Manifest:
    for name in _DOCUMENTS:
        path = inside(folder, name)
        if path.is_file() and path.stat().st_size > LIMIT_BYTES:
            raise ArtifactError(
                f"{name} in {folder} is larger than {LIMIT_BYTES / 1e6:.0f} MB",
                expected="a document that edgesdk wrote",
            )
    return read_manifest(folder)


def _last_stored(stored: Sequence[Stored], digest: str) -> dict[Measurement, int | None]:
    """Return the last stored measurement of a file from each place, and their numbers.

    A place is a device, its hardware, what executed the file and on what. The last one that went on
    for a sustained run is kept beside a shorter one that came after it.
    """
    last: dict[object, Stored] = {}
    for item in stored:
        timed = item.measurement
        if timed.artifact_sha256 == digest:
            place = (timed.device, timed.hardware, timed.identity, bool(timed.sustained))
            last[place] = item
    kept = sorted(last.values(), key=lambda item: item.number)
    return {item.measurement: item.number for item in kept}


def _describe(
    folder: Path, manifest: Manifest, label: str, measurements: Mapping[Measurement, int | None]
) -> ArtifactData:
    if LAYERS not in manifest.sha256:
        raise ArtifactError(
            f"{folder} has no {LAYERS}",
            expected="an artifact that this version of edgesdk compiled",
            next_step="compile it anew; 'compile --plan' with its plan.json makes the same file",
        )
    return describe_artifact(
        folder,
        manifest,
        read_json(Plan, folder / PLAN),
        read_json(LayerChanges, folder / LAYERS),
        label=label,
        measurements=measurements,
    )


def _owners(
    path: Path, measurement: Measurement, folders: Sequence[Path], digests: Sequence[str]
) -> list[int]:
    """Return which artifacts hold the file that was timed: equal bytes may be in several."""
    owners = [
        index for index, digest in enumerate(digests) if digest == measurement.artifact_sha256
    ]
    if not owners:
        raise MeasurementError(
            f"{path} is a measurement of a file with SHA-256 {measurement.artifact_sha256[:12]}...",
            expected=f"one of the file in {' or '.join(str(folder) for folder in folders)}",
        )
    return owners


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each folder: its own, or its path where two have the same."""
    names = [folder.resolve().name for folder in folders]
    return [
        name if names.count(name) == 1 else str(folder)
        for name, folder in zip(names, folders, strict=True)
    ]
