"""Tables of the documentation against the code they describe."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import get_args

import pytest
from pages import ROOT, read_prose, read_rows

from edgesdk import artifact, errors, quantity
from edgesdk.artifact import Manifest
from edgesdk.budget import Budget
from edgesdk.cli.app import _INTERRUPTED
from edgesdk.compress import samples
from edgesdk.device import DeviceProfile, Memory, Runtime, Vela
from edgesdk.device_files import load_device, profile_names
from edgesdk.effort import EFFORTS
from edgesdk.evidence import Evidence
from edgesdk.figure import STANDINGS
from edgesdk.measurement import Measurement
from edgesdk.parity import MINIMUM_SQNR_DB
from edgesdk.plan import Distil, Plan
from edgesdk.planner import limits, program, proposals, sensing
from edgesdk.planner.search import DEFAULT_MAX_DROP
from edgesdk.planner.tables import width_choices
from edgesdk.stages import feedback
from edgesdk.target import target_names

CONCEPTS = ROOT / "docs/concepts"


def _code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_error_has_its_row_and_exit_code() -> None:
    classes = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.EdgeSDKError)
        and kind is not errors.EdgeSDKError
    }
    rows = read_rows(CONCEPTS / "errors.md", "exit code")
    documented = {name: int(code) for code, names, _ in rows for name in _code(names)}
    assert documented == classes
    others = {int(code) for code, names, _ in rows if not names}
    assert others == {0, errors.EdgeSDKError.exit_code, _INTERRUPTED}


def test_parity_thresholds() -> None:
    rows = read_rows(CONCEPTS / "parity.md", "precision")
    assert {scheme: float(least.split()[0]) for scheme, least in rows} == MINIMUM_SQNR_DB


@pytest.mark.parametrize(
    ("page", "heading", "kind"),
    [
        ("artifact.md", "field", Manifest),
        ("plan.md", "field", Plan),
        ("measurement.md", "field", Measurement),
    ],
    ids=["manifest", "plan", "measurement"],
)
def test_fields_are_documented(page: str, heading: str, kind: type) -> None:
    documented = {name for row in read_rows(CONCEPTS / page, heading) for name in _code(row[0])}
    assert documented == {field.name for field in fields(kind)}


def test_files_of_an_artifact() -> None:
    documented = {
        name for row in read_rows(CONCEPTS / "artifact.md", "file") for name in _code(row[0])
    }
    names = (
        "MANIFEST", "MANIFEST_SHA256", "PLAN", "GOLDEN", "GRAPH", "PROFILE_MAP", "LAYERS", "REPORT",
    )  # fmt: skip
    models = {"model.pte", "model.tflite", "model.mlpackage", "model.onnx", "before_vela.tflite"}
    models |= {"model.etrecord", "model.bpte"}
    assert documented == {getattr(artifact, name) for name in names} | models


def test_budget_flags_and_fields() -> None:
    rows = read_rows(CONCEPTS / "budget.md", "flag")
    assert [name for row in rows for name in _code(row[1])] == [f.name for f in fields(Budget)]
    for flag, name, *_ in rows:
        option, value = _code(flag)[0].removeprefix("--").split()
        parsed = Budget.parse(**{option.replace("-", "_"): value})
        assert getattr(parsed, _code(name)[0]) is not None


def test_standings_are_those_that_exist() -> None:
    for page, heading in ((CONCEPTS / "budget.md", "standing"), (ROOT / "README.md", "standing")):
        named = [row[0].strip("`") for row in read_rows(page, heading)]
        assert named == [standing for standing in STANDINGS if standing in named]


def test_numbers_in_prose_are_the_code_s() -> None:
    plan = read_prose(CONCEPTS / "plan.md")
    assert f"most {feedback._MAXIMUM_PROBES} probes" in plan
    for name, visits, trainings in read_rows(CONCEPTS / "plan.md", "effort"):
        spending = EFFORTS[name.split("`")[1]]  # type: ignore[index]
        assert str(spending.trainings) in trainings.split()
        assert f"{spending.sample_visits:,}" in visits or not spending.sample_visits
    assert f"up to {samples.SAMPLES} of your inputs" in plan
    assert f"{sensing._FEWEST_SAMPLES} at least" in plan
    shares = [f"{100 * share:g}" for share in sensing.JOINT_SHARES]
    assert f"to {', '.join(shares[:-1])} and {shares[-1]} % of their channels" in plan
    front = [f"{100 * share:g}" for share in proposals.FRONT]
    assert f"for {', '.join(front[:-1])} and {front[-1]} % of the original's" in plan
    assert f"more than {100 * program.GAP:g} % better" in plan
    assert f"after {program.TIME_LIMIT_S:g} seconds" in plan
    assert f"up to {proposals._ROUNDS} times" in plan
    assert f"aims at {100 * limits.AIM:g} % of a latency limit" in plan
    assert f"no more than {100 * (1 - feedback._WORTH_A_PROBE):.0f} %" in plan
    [row] = width_choices((64,), (1,), 1)
    assert (len(row), row[0]) == (8, 64 // 8)
    assert "up to 8 widths" in plan
    assert "from an eighth of its channels to all" in plan
    assert DEFAULT_MAX_DROP == 0.01
    assert "within a drop of one point" in read_prose(CONCEPTS / "budget.md")


def test_distillation_settings_are_fields() -> None:
    rows = read_rows(CONCEPTS / "distillation.md", "what")
    named = {name for row in rows for name in _code(row[0])}
    assert named == {field.name for field in fields(Distil)} - {"kind"}


def test_device_table() -> None:
    rows = {
        name: _code(row[2])
        for row in read_rows(ROOT / "README.md", "device")
        for name in _code(row[0])
    }
    assert sorted(rows) == sorted(profile_names())
    for name, documented in rows.items():
        emitted = [target for target in load_device(name).targets if target in target_names()]
        assert documented == emitted, name


def _fields(kind: type) -> set[str]:
    return {field.name for field in fields(kind)} - {"schema_version"}


def test_device_keys_are_documented() -> None:
    page = (CONCEPTS / "device.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| (.+?) \|", page, re.MULTILINE))
    names = {name for cell in documented for name in _code(cell)}
    for kind in (DeviceProfile, Memory, Runtime, Vela, Evidence):
        missing = _fields(kind) - names
        assert not missing, (kind.__name__, missing)
    kinds = {row[0].strip("`") for row in read_rows(CONCEPTS / "device.md", "kind")}
    assert kinds == set(get_args(quantity.Evidence))


def test_errors_in_the_table_are_those_of_the_profiles() -> None:
    rows = read_rows(CONCEPTS / "device.md", "profile")
    assert rows
    for name, target, scheme, networks, error, factor, kind in rows:
        device = load_device(_code(name)[0])
        runtime = device.runtime_for(_code(target)[0])
        [cost] = [cost for key, cost in runtime.precisions.items() if key == _code(scheme)[0]]
        assert cost.median_error is not None
        assert (networks, kind) == (str(cost.networks), cost.median_error.kind)
        assert error == f"{100 * cost.median_error.value:.0f} %"
        assert factor == f"{cost.error_factor.value:.2f}"
