"""An artifact: the folder that is handed over, described and sealed by its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import ConfigDict

from edgesdk.budget import Verdict
from edgesdk.document import read_json
from edgesdk.errors import ArtifactError
from edgesdk.figure import Figure, FigureName
from edgesdk.host_runtime import HostRuntime
from edgesdk.measurement import Measurement
from edgesdk.scheme import Scheme
from edgesdk.task import InputSpec, OutputSpec

MANIFEST = "manifest.json"
# One line as sha256sum writes it: the manifest holds the hashes of all files but its own.
MANIFEST_SHA256 = "manifest.sha256"
PLAN = "plan.json"
REPORT = "REPORT.md"
GOLDEN = "golden.safetensors"
PROFILE_MAP = "profile_map.json"
LAYERS = "layers.json"
GRAPH = "graph.json"


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output as the file has it.

    ``shape`` includes the batch; ``from_torch`` is the permutation that turns the PyTorch-layout
    tensor into the file's layout (``(0, 2, 3, 1)`` for NHWC). Where ``scale`` is set the file
    takes integers: ``real = scale * (integer - zero_point)``.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    shape: tuple[int, ...]
    dtype: str
    from_torch: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OpCount:
    """How many operators of a kind the file runs in a type, and the weight bytes they hold.

    ``dtype`` is what the operator computes in ("int8", "float32", ...); ``where`` says who
    executes it: a delegate ("xnnpack") or the runtime's own kernels ("portable", "builtin").
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    op: str
    dtype: str
    where: str
    count: int
    weight_bytes: int


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at in the emitted file, and what was seen."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How closely the artifact on its runtime follows the PyTorch model it was emitted from.

    ``sqnr_db``: signal to quantization noise over all outputs, as ``edgesdk.parity.sqnr_db``.
    ``maximum_error``: largest absolute difference, in output units. ``top1_agreement``: share of
    samples with the same largest output, None where outputs are not logits. ``status`` is the
    standing of what ran the file, "not verified" where nothing on this machine does; ``checks``
    hold what was read from it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    status: Literal["verified", "interpreted", "not verified"]
    runtime: str
    samples: int
    sqnr_db: float | None
    maximum_error: float | None
    top1_agreement: float | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class FieldRun:
    """An older runtime that the artifact was run on: whether it answers there, or why not."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    runtime: str
    runs: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about an artifact that a person, an app or ``edgesdk verify`` needs to know.

    ``task_reference`` is what the command line called the task, without folders of the machine it
    was compiled on; empty where a ``Task`` made in Python was given. ``layer_schemes`` names the
    layers that have another scheme than the network. ``elsewhere`` predicts the figures on the
    other devices of a fleet, by their names. ``host_files`` is what ``host_runtime`` runs
    where ``files`` run on the device alone. ``developer_files`` are for the runtime's developer
    tools, never shipped. ``field_runs`` are runs on older runtimes: what else
    is below ``minimum_runtime`` and was tried, never what a file's metadata claims.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    task: str
    device: str
    target: str
    delegate: str
    runtime: str
    minimum_runtime: str
    host_runtime: HostRuntime | None
    threads: int
    unit: Literal["cpu", "gpu", "npu"]
    scheme: Scheme
    batch_size: int
    files: tuple[str, ...]
    sha256: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_specs: tuple[InputSpec, ...]
    output_specs: tuple[OutputSpec, ...]
    operators: tuple[OpCount, ...]
    tool_versions: Mapping[str, str]
    plan_sha256: str
    parity: Parity
    baseline: Mapping[FigureName, Figure]
    predicted: Mapping[FigureName, Figure]
    verified: Mapping[FigureName, Figure]
    interpreted: Mapping[FigureName, Figure]
    measured: Mapping[FigureName, Figure]
    budget: tuple[Verdict, ...]
    device_commands: tuple[str, ...] = ()
    host_files: tuple[str, ...] = ()
    developer_files: tuple[str, ...] = ()
    field_runs: tuple[FieldRun, ...] = ()
    measurement: Measurement | None = None
    task_reference: str = ""
    layer_schemes: Mapping[str, Scheme] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[FigureName, Figure]] = field(default_factory=dict)
    schema_version: Literal[1] = 1

    @property
    def label(self) -> str:
        """What a list of measurements calls the artifact: task, target and precision."""
        return f"{self.task} {self.target} {self.scheme}"

    def is_of_its_device(self, measurement: Measurement) -> bool:
        """Whether a measurement is of what the predictions are about, down to unit and threads."""
        return not self.departures(measurement)

    def departures(self, measurement: Measurement) -> tuple[str, ...]:
        """Return in words in what a measurement is not what the predictions are about."""
        other = measurement.device != self.device
        device = (f"on {measurement.device}, not {self.device}",) if other else ()
        ran = measurement.identity.departures(
            runtime=self.runtime, unit=self.unit, threads=self.threads
        )
        return (*device, *ran)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their relative names together."""
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
        return digest.hexdigest()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def files_under(path: Path) -> list[Path]:
    """Return a file itself, or every file under a folder, sorted by relative name."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def size_bytes(folder: Path, names: tuple[str, ...]) -> int:
    """Return the real bytes of those files (folders count all their files)."""
    return sum(file.stat().st_size for name in names for file in files_under(folder / name))


def inside(folder: Path, name: str) -> Path:
    """Return ``folder/name``; ``ArtifactError`` if ``..`` or a link leads out of the folder."""
    pure = PurePosixPath(name)
    path = folder / name
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise ArtifactError(f"the manifest names {name!r}, which is not inside the artifact")
    try:
        leaves = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as problem:  # a name too long, NUL, a loop of links
        raise ArtifactError(f"the manifest names {name!r}, which cannot be: {problem}") from None
    if leaves:
        raise ArtifactError(f"{name!r} is a link that leads out of the artifact folder")
    return path


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an artifact folder, its hashes checked against the files.

    Raises ``ArtifactError`` for a missing, malformed or newer manifest, a missing or extra file,
    and any file whose bytes are not those that were sealed.
    """
    if not folder.is_dir():
        raise ArtifactError(
            f"{folder} is not an artifact folder",
            expected="the folder that 'edgesdk compile ... -o OUT' wrote",
        )
    manifest = read_json(Manifest, inside(folder, MANIFEST))
    _check_manifest(folder)
    # Links to folders count as files: nothing that is sealed is one, so they are extra.
    found = (p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    present = {p.relative_to(folder).as_posix() for p in found} - {MANIFEST, MANIFEST_SHA256}
    for name in sorted(present | set(manifest.sha256)):
        path = inside(folder, name)
        if name not in manifest.sha256:
            raise ArtifactError(f"{name} is in the folder but not in the manifest")
        if name not in present:
            raise ArtifactError(f"{name} is in the manifest but not in the folder")
        if sha256_of(path) != manifest.sha256[name]:
            raise ArtifactError(
                f"{name} is not the file that was compiled: its SHA-256 differs from the manifest",
                next_step="copy the artifact again, or compile it anew",
            )
    _check_files(manifest, present)
    return manifest


def manifest_seal(folder: Path) -> str:
    """Return the line that seals the manifest, for ``sha256sum --check manifest.sha256``."""
    return f"{sha256_of(folder / MANIFEST)}  {MANIFEST}\n"


def _check_manifest(folder: Path) -> None:
    try:
        sealed = inside(folder, MANIFEST_SHA256).read_bytes()
    except OSError as problem:
        raise ArtifactError(f"{MANIFEST_SHA256} cannot be read: {problem.strerror}") from None
    if sealed != manifest_seal(folder).encode():
        raise ArtifactError(
            f"{MANIFEST} is not as it was written: its SHA-256 differs from {MANIFEST_SHA256}",
            next_step="copy the artifact again, or compile it anew",
        )


def _check_files(manifest: Manifest, present: set[str]) -> None:
    """Raise ``ArtifactError`` unless the runtime's files, plan and golden vectors are all there."""
    if not manifest.files:
        raise ArtifactError("the manifest names no file for the runtime")
    for name in (*manifest.files, *manifest.host_files, *manifest.developer_files, PLAN, GOLDEN):
        if not any(file == name or file.startswith(f"{name}/") for file in present):
            raise ArtifactError(f"{name} belongs to the artifact but is not in the folder")
    if manifest.plan_sha256 != manifest.sha256.get(PLAN):
        raise ArtifactError(f"{PLAN} is not the plan that the manifest was written for")
