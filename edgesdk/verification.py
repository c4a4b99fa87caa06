"""Check a finished artifact again: hashes, loading, golden vectors, and accuracy on request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from edgesdk.artifact import GOLDEN, Check, Manifest, inside, read_manifest
from edgesdk.cache import default_root
from edgesdk.compress.evaluation import evaluate_task
from edgesdk.document import to_builtins
from edgesdk.errors import ArtifactError, UsageError, unknown_name
from edgesdk.figure import Figure
from edgesdk.host_runtime import HostRuntime
from edgesdk.parity import MINIMUM_SQNR_DB, sqnr_db
from edgesdk.running.adapter import artifact_predict, decode_outputs, encode_inputs
from edgesdk.running.process import ArtifactProcess
from edgesdk.scheme import coarsest
from edgesdk.stages.proof import told_by
from edgesdk.stages.sealing import read_golden
from edgesdk.target import Emission, FieldRunner, find_target, target_names
from edgesdk.task import Task, Tensors, output_tensors

# Two runs of one file on one runtime are equal bit by bit; another build of the runtime may round
# otherwise, and then stays far below what any scheme's own noise is.
_GOLDEN_SQNR_DB = 40.0
_OTHER_BUILD_DIFFERENCE = 0.005


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The checks on an artifact.

    ``status`` is the standing of what ran the file where every check passed, and "not verified"
    where nothing here can run it.
    """

    status: Literal["verified", "interpreted", "not verified", "failed"]
    artifact: Path
    runtime: str | None
    checks: tuple[Check, ...]
    accuracy: Figure | None
    sealed_accuracy: Figure | None

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "status": "error" if self.status == "failed" else "ok",
            "verification": self.status,
            "artifact": str(self.artifact),
            "runtime": self.runtime,
            "checks": [to_builtins(check) for check in self.checks],
            "accuracy": self.accuracy.value if self.accuracy else None,
            "sealed_accuracy": self.sealed_accuracy.value if self.sealed_accuracy else None,
        }


def golden_sqnr_db(manifest: Manifest) -> float:
    """Return the signal to noise in dB that golden outputs computed elsewhere must reach.

    40 dB where the golden outputs are what the artifact's own runtime answered: only rounding
    differs from build to build. Where nothing here ran the file they are the network's own, and
    the file may be as far off as its precision is (``edgesdk.parity.MINIMUM_SQNR_DB``).
    """
    host = manifest.host_runtime
    if host is not None and host.standing == "verified":
        return _GOLDEN_SQNR_DB
    return MINIMUM_SQNR_DB[coarsest({manifest.scheme, *manifest.layer_schemes.values()})]


def verify_artifact(folder: Path, task: Task | None = None) -> Verification:
    """Return the checks on an artifact folder; raises ``ArtifactError`` for a damaged one.

    With a ``task`` its test metric is computed again on the artifact's own runtime and compared
    with the sealed one.
    """
    manifest = read_manifest(folder)
    checks = [_whole(manifest)]
    sealed = manifest.verified.get("accuracy") or manifest.interpreted.get("accuracy")
    host = manifest.host_runtime
    if host is None:
        return Verification(
            status="not verified",
            artifact=folder,
            runtime=None,
            checks=tuple(checks),
            accuracy=None,
            sealed_accuracy=sealed,
        )
    accuracy = None
    with open_artifact(folder, manifest) as process:
        checks.append(Check(name="load", passed=True, detail=f"{process.load_ms:.1f} ms"))
        checks.append(_check_golden(folder, process))
        if task is not None:
            accuracy = _score(task, process, host)
            checks.append(_check_accuracy(task, accuracy, sealed))
    return Verification(
        status=host.standing if all(check.passed for check in checks) else "failed",
        artifact=folder,
        runtime=host.name,
        checks=tuple(checks),
        accuracy=accuracy,
        sealed_accuracy=sealed,
    )


def open_artifact(folder: Path, manifest: Manifest) -> ArtifactProcess:
    """Return the (not yet entered) process that runs a finished artifact here.

    Raises ``ArtifactError`` where no runtime on this machine executes it.
    """
    if manifest.host_runtime is None:
        raise ArtifactError(f"nothing on this machine runs {manifest.runtime} files")
    emission = emission_of(folder, manifest)
    return ArtifactProcess(
        target=manifest.target,
        folder=folder,
        emission=emission,
        host_runtime=manifest.host_runtime.name,
        threads=manifest.threads,
    )


def verify_in_field(folder: Path, name: str, python: Path | None = None) -> Verification:
    """Return whether an artifact answers its golden vectors on an older runtime, by its name.

    ``python`` is that of an environment that has the runtime; without it one is made in the user's
    cache folder.
    What does not run there is a check that failed, with the reason. The signal to noise is held to
    the precision's own threshold (``edgesdk.parity``): an old runtime rounds otherwise.

    Raises ``UsageError`` for a runtime that nobody knows, or that the artifact is not for, and
    ``TargetUnavailable`` where the environment cannot be made.
    """
    manifest = read_manifest(folder)
    runner = field_runner(manifest.target, name)
    if manifest.host_files:
        raise UsageError(
            f"{name} does not run files for {manifest.delegate}",
            expected="an artifact that runs on a CPU",
        )
    emission = emission_of(folder, manifest)
    inputs, wanted = read_golden(folder / GOLDEN)
    stacked, count = encode_inputs(inputs, emission.inputs)
    checks = [_whole(manifest)]
    runtime = name
    try:
        identity, outputs = runner.run_in_field(
            name, python or runner.prepare_field(name, default_root()), folder, emission, stacked
        )
    except ArtifactError as problem:
        checks.append(Check(name="runs there", passed=False, detail=problem.found))
    else:
        runtime = f"{identity.runtime} {identity.version}"
        detail = f"{identity.platform}, {len(stacked[0])} inferences"
        checks.append(Check(name="runs there", passed=True, detail=detail))
        got = decode_outputs(outputs, emission.outputs, count)
        least_db = MINIMUM_SQNR_DB[coarsest({manifest.scheme, *manifest.layer_schemes.values()})]
        checks.append(_compare_golden(wanted, got, least_db))
    return Verification(
        status="verified" if all(check.passed for check in checks) else "failed",
        artifact=folder,
        runtime=runtime,
        checks=tuple(checks),
        accuracy=None,
        sealed_accuracy=manifest.verified.get("accuracy"),
    )


def field_runner(target_name: str, name: str) -> FieldRunner:
    """Return the target as what runs its files on that runtime; ``UsageError`` if it does not."""
    runners = [found for t in target_names() if isinstance(found := find_target(t), FieldRunner)]
    known = sorted({runtime for runner in runners for runtime in runner.field_runtimes})
    if name not in known:
        raise UsageError(unknown_name("runtime", name, known, listing=f"known: {', '.join(known)}"))
    target = find_target(target_name)
    if not isinstance(target, FieldRunner) or name not in target.field_runtimes:
        raise UsageError(
            f"{name} does not run files of target {target_name!r}",
            next_step="leave --runtime out: the artifact's own runtime is then asked",
        )
    return target


def _whole(manifest: Manifest) -> Check:
    count = len(manifest.sha256)
    return Check(name="hashes", passed=True, detail=f"{count} files are as they were sealed")


def _check_golden(folder: Path, process: ArtifactProcess) -> Check:
    inputs, wanted = read_golden(folder / GOLDEN)
    got = output_tensors(artifact_predict(process)(*inputs))
    return _compare_golden(wanted, got, _GOLDEN_SQNR_DB)


def _compare_golden(wanted: Tensors, got: Tensors, least_db: float) -> Check:
    exact = len(wanted) == len(got) and all(map(torch.equal, wanted, got))
    noise_db = sqnr_db(wanted, got)
    detail = "bit-identical" if exact else f"signal to noise {noise_db} dB"
    passed = exact or (noise_db is not None and noise_db >= least_db)
    return Check(name="golden vectors", passed=passed, detail=f"{len(wanted[0])} samples, {detail}")


def emission_of(folder: Path, manifest: Manifest) -> Emission:
    """Return how to feed a finished artifact, its files checked to be inside its folder."""
    for name in (*manifest.files, *manifest.host_files):
        inside(folder, name)
    return Emission(
        files=manifest.files,
        host_files=manifest.host_files,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        tool_versions=manifest.tool_versions,
        layer_of={},
    )


def _score(task: Task, process: ArtifactProcess, host: HostRuntime) -> Figure:
    samples = 0
    predict = artifact_predict(process)

    def counted(*inputs: torch.Tensor) -> torch.Tensor | Tensors:
        nonlocal samples
        samples += len(inputs[0])
        return predict(*inputs)

    value = evaluate_task(task, counted, "test")
    source = f"{samples} test samples, {told_by(process, host)}"
    return Figure(value=value, standing=host.standing, source=source)


def _check_accuracy(task: Task, accuracy: Figure, sealed: Figure | None) -> Check:
    if sealed is None:
        return Check(name="accuracy", passed=True, detail=f"{accuracy.value:.4f}, none was sealed")
    # One build of a runtime repeats itself; another one may round an even vote the other way.
    span = task.metric.high - task.metric.low
    tolerance = 0.0 if accuracy.source == sealed.source else _OTHER_BUILD_DIFFERENCE * span
    passed = abs(accuracy.value - sealed.value) <= tolerance
    detail = f"{accuracy.value:.4f} on {accuracy.source}, sealed as {sealed.value:.4f}"
    return Check(name="accuracy", passed=passed, detail=detail)
