"""Tables of the documentation against the code they describe."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from pages import ROOT, read_prose, read_rows

from edgesdk import artifact, errors
from edgesdk.artifact import Manifest
from edgesdk.budget import Budget
from edgesdk.cli.app import _INTERRUPTED
from edgesdk.device_files import load_device, profile_names
from edgesdk.figure import STANDINGS
from edgesdk.parity import MINIMUM_SQNR_DB
from edgesdk.plan import Distil, Plan
from edgesdk.planner.search import DEFAULT_MAX_DROP
from edgesdk.planner.sensitivity import PRUNING_RATIOS, SPREADS
from edgesdk.stages import feedback

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
    [("artifact.md", "field", Manifest), ("plan.md", "field", Plan)],
    ids=["manifest", "plan"],
)
def test_fields_are_documented(page: str, heading: str, kind: type) -> None:
    documented = {name for row in read_rows(CONCEPTS / page, heading) for name in _code(row[0])}
    assert documented == {field.name for field in fields(kind)}


def test_files_of_an_artifact() -> None:
    documented = {
        name for row in read_rows(CONCEPTS / "artifact.md", "file") for name in _code(row[0])
    }
    names = ("MANIFEST", "MANIFEST_SHA256", "PLAN", "GOLDEN", "PROFILE_MAP", "REPORT")
    models = {"model.pte", "model.tflite", "model.mlpackage"}
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
    assert f"most {feedback._MAXIMUM_RECOVERIES} trainings" in plan
    assert (len(PRUNING_RATIOS), PRUNING_RATIOS[0], PRUNING_RATIOS[-1]) == (9, 0.1, 0.9)
    assert SPREADS == ("global", "uniform")
    assert "nine ratios from 10 % to 90 % of its channels, each\n  in two spreads" in plan
    assert DEFAULT_MAX_DROP == 0.01
    assert "within a drop of one point" in read_prose(CONCEPTS / "budget.md")


def test_distillation_settings_are_fields() -> None:
    rows = read_rows(CONCEPTS / "distillation.md", "what")
    named = {name for row in rows for name in _code(row[0])}
    assert named == {field.name for field in fields(Distil)} - {"kind"}


def test_device_table() -> None:
    rows = {_code(row[0])[0]: row for row in read_rows(ROOT / "README.md", "device")}
    assert sorted(rows) == sorted(profile_names())
    for name, row in rows.items():
        profile = load_device(name)
        assert tuple(_code(row[2])) == profile.targets, name
