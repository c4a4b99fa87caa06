"""Do predictions improve on networks that ``devices calibrate`` never saw?

    python benchmarks/calibration_gain.py -o folder [--target tflite] [--scheme fp32]

Every step is one of a user's commands: ``compile --device host`` makes sixteen artifacts, ``profile
--on local`` measures them, and ``devices calibrate host --from`` learns from the first eight. The
other eight, which nobody looked at while the cost model was made, are then predicted with the
packaged profile and with the calibrated one. Prints both errors; exit code 1 where the calibrated
one is not smaller. Finished artifacts and measurements are kept; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesdk.artifact import GRAPH, read_manifest
from edgesdk.cost.latency import predict_latency
from edgesdk.device import DeviceProfile
from edgesdk.device_files import load_device
from edgesdk.figure import Figure
from edgesdk.measurement_file import read_measurement
from edgesdk.stored_graph import read_graph

TASKS = Path(__file__).parent / "tasks" / "untrained.py"
# Of each, the first COUNT that compile: with random weights some fail the parity gate.
LEARNED = (
    "digits", "resnet20", "ds_cnn", "resnet", "resnet_bottleneck", "mobilenet_v1", "deit", "bert",
    "segformer", "vit", "distilbert", "mobilenet_v2",
)  # fmt: skip
JUDGED = (
    "keypoints", "tcn", "ecg_resnet", "super_resolution", "u_net", "mixer", "squeezenet",
    "shufflenet", "densenet", "mobilevit", "efficientnet", "focalnet",
)  # fmt: skip
COUNT = 8
NEAR = 0.25


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A network's measured latency beside what two profiles predict, in ms."""

    network: str
    measured_ms: float
    before: Figure
    after: Figure


def edgesdk(folder: Path, *words: str) -> str:
    """Run a command of edgesdk's, its store and profiles in the folder; return why it refused."""
    own = {"EDGESDK_STORE": str(folder / "store"), "XDG_CONFIG_HOME": str(folder / "config")}
    command = [sys.executable, "-m", "edgesdk", *words, "--json", "--quiet"]
    done = subprocess.run(  # noqa: S603 - a list of words, no shell
        command, env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    if not done.stdout:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return "" if done.returncode == 0 else str(json.loads(done.stdout)["message"])


def measured(folder: Path, network: str, target: str, scheme: str) -> Path | None:
    """Return the artifact of a network, compiled and profiled if that was not done before.

    None, and the reason printed, where it does not compile.
    """
    artifact = folder / f"{network}-{target}-{scheme}"
    if not artifact.exists():
        options = ("--device", "host", "--target", target, "--scheme", scheme, "--effort", "quick")
        words = ("compile", f"{TASKS}:{network}", *options, "-o", str(artifact))
        if reason := edgesdk(folder, *words):
            print(f"not compiled: {network}: {reason}", flush=True)
            return None
    timed = artifact.with_suffix(".json")
    if not timed.exists():
        words = ("profile", str(artifact), "--on", "local", "--no-hooks", "-o", str(timed))
        if reason := edgesdk(folder, *words):
            raise SystemExit(f"{network} cannot be profiled: {reason}")
    print(f"{artifact.name}: {read_measurement(timed).p50_ms:.4f} ms", flush=True)
    return artifact


def first_measured(folder: Path, names: Sequence[str], target: str, scheme: str) -> list[Path]:
    """Return the first artifacts that compile, measured."""
    found: list[Path] = []
    for name in names:
        artifact = measured(folder, name, target, scheme) if len(found) < COUNT else None
        found += [artifact] if artifact else []
    return found


def predict(artifact: Path, device: DeviceProfile) -> Figure:
    """Return what a profile predicts for an artifact's latency."""
    manifest = read_manifest(artifact)
    runtime, layers = device.runtime_for(manifest.target), manifest.layer_schemes
    return predict_latency(read_graph(artifact / GRAPH), runtime, manifest.scheme, layers).total


def judge(folder: Path, target: str, scheme: str) -> list[Guess]:
    """Return the guesses on the networks that calibration did not see."""
    learned = first_measured(folder, LEARNED, target, scheme)
    judged = first_measured(folder, JUDGED, target, scheme)
    (profile := folder / f"{target}-{scheme}" / "host.toml").unlink(missing_ok=True)
    profile.parent.mkdir(exist_ok=True)
    sources = [word for artifact in learned for word in ("--from", str(artifact))]
    if reason := edgesdk(folder, "devices", "calibrate", "host", *sources, "-o", str(profile)):
        raise SystemExit(f"calibrate refused: {reason}")
    before, after = load_device("host"), load_device(str(profile))
    return [
        Guess(
            network=read_manifest(artifact).task,
            measured_ms=read_measurement(artifact.with_suffix(".json")).p50_ms,
            before=predict(artifact, before),
            after=predict(artifact, after),
        )
        for artifact in judged
    ]


def summary(pairs: Sequence[tuple[Figure, float]]) -> tuple[float, str]:
    """Return the median error, as a share of what was measured, and it with others in words."""
    errors = [abs(figure.value / ms - 1) for figure, ms in pairs]
    factors = [max(figure.value / ms, ms / figure.value) for figure, ms in pairs]
    inside = sum((f.low or 0.0) <= ms <= (f.high or 0.0) for f, ms in pairs)
    median = statistics.median(errors)
    return median, (
        f"median error {100 * median:.0f} %, typically off by a factor of "
        f"{statistics.median(factors):.2f}, at most by {max(factors):.2f}; "
        f"{sum(error <= NEAR for error in errors)} of {len(errors)} within 25 %, "
        f"{inside} in the interval"
    )


def main() -> int:
    """Print each network and both errors, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--target", default="tflite")
    parser.add_argument("--scheme", default="fp32")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    guesses = judge(options.out, options.target, options.scheme)
    print(f"{'network':18}{'measured ms':>12}{'before':>10}{'after':>10}")
    for item in guesses:
        shown = (item.measured_ms, item.before.value, item.after.value)
        print(f"{item.network:18}{shown[0]:12.4f}{shown[1]:10.4f}{shown[2]:10.4f}")
    before, words_before = summary([(item.before, item.measured_ms) for item in guesses])
    after, words_after = summary([(item.after, item.measured_ms) for item in guesses])
    print(f"packaged profile:   {words_before}")
    print(f"calibrated profile: {words_after}")
    return int(after >= before)


if __name__ == "__main__":
    sys.exit(main())
