"""The Linux app, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from measurements import check_measurement
from sealed import ARTIFACTS

from edgesdk.artifact import GOLDEN, read_manifest
from edgesdk.integrating.generation import integrate
from edgesdk.stages.sealing import read_golden

pytestmark = [pytest.mark.slow, pytest.mark.toolchain]


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "digits", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.parametrize("artifact", ["digits_phone", "digits_board"])
def test_self_test_benchmark_and_prediction(artifact: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    integrate(ARTIFACTS / artifact, "linux", app)
    run(app, "--benchmark", "--runs", "20", "--sustained", "0.1", "-o", str(tmp_path / "m.json"))
    document = json.loads((tmp_path / "m.json").read_text())
    measurement = check_measurement(document)
    assert document["self_test"]["status"] == "passed"
    assert measurement.runs == 20
    assert document["sustained"]

    manifest = read_manifest(ARTIFACTS / artifact)
    (images,), (logits,) = read_golden(ARTIFACTS / artifact / GOLDEN)
    [meaning] = manifest.input_specs
    pixels = images[:1].permute(0, 2, 3, 1).numpy() * meaning.std[0] + meaning.mean[0]
    np.save(tmp_path / "image.npy", pixels)
    answer = json.loads(run(app, "--predict", str(tmp_path / "image.npy")))
    # Undoing and repeating the normalisation rounds; int8 may then step once.
    assert int(np.argmax(answer["logits"])) == int(logits[0].argmax())
    assert np.abs(np.array(answer["logits"]) - logits[:1].numpy()).max() < 0.5


def test_a_wrong_answer_and_another_file_are_noticed(tmp_path: Path) -> None:
    app = tmp_path / "app"
    integrate(ARTIFACTS / "digits_phone", "linux", app)
    golden = app / "digits/golden.bin"
    values = np.frombuffer(golden.read_bytes(), "<f4").copy()
    values[-10:] *= -1
    golden.write_bytes(values.tobytes())
    assert "FAILED" in run(app, "--self-test", code=1)
    model = app / "digits/model.tflite"
    model.write_bytes(model.read_bytes() + b"\0")
    run(app, "--self-test", code=1)
