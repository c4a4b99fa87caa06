"""``compile --plan`` with steps that prepare for quantization, on the real toolchains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answers import Asking, answered

BLOBS = f"{Path(__file__).parents[1] / 'blobs_task.py'}:blobs"
PRUNE: dict[str, Any] = {
    "kind": "prune", "ratio": 0.25, "channel_multiple": 8, "importance": "taylor",
    "groups": [{"layer": "0", "width_before": 96, "removed": list(range(48))}],
}  # fmt: skip
TRAINING: dict[str, Any] = {
    "epochs": 2, "learning_rate": 0.002, "temperature": 4.0, "alpha": 0.9, "patience": 2,
}  # fmt: skip
STEPS: list[dict[str, Any]] = [
    PRUNE,
    {"kind": "distil", **TRAINING},
    {"kind": "equalize"},
    {"kind": "qat", **TRAINING},
    {"kind": "quantize", "scheme": "int8"},
]


@pytest.mark.slow
@pytest.mark.toolchain
def test_a_plan_with_training_for_int8_is_replayed_and_verified(
    asking: Asking, tmp_path: Path
) -> None:
    where = ("--device", "samsung_galaxy_s24", "--target", "tflite")
    path, out = tmp_path / "plan.json", tmp_path / "out"
    code, _ = asking("plan", BLOBS, *where, "-o", str(path))
    assert code == 0
    plan = json.loads(path.read_text(encoding="utf-8"))
    plan |= {"scheme": "int8", "steps": STEPS}
    path.write_text(json.dumps(plan), encoding="utf-8")

    code, made = answered(
        asking("compile", BLOBS, *where, "--plan", str(path), "-o", str(out), "--json")
    )

    assert (code, made["status"]) == (0, "ok")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["parity"]["status"] == "verified"
    assert made["verified"]["accuracy_drop"] < 0.05
    kept = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    assert [step["kind"] for step in kept["steps"]] == [step["kind"] for step in STEPS]
    code, checked = answered(asking("verify", str(out), "--task", BLOBS, "--json"))
    assert (code, checked["verification"]) == (0, "verified")
