import inspect

import pytest

from edgesdk import errors
from edgesdk.errors import EdgeSDKError, UsageError, near_names, unknown_name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("UsageError", 2),
        ("BudgetInfeasible", 3),
        ("ParityError", 4),
        ("TargetUnavailable", 5),
        ("UnsupportedModel", 6),
        ("ProfileError", 7),
        ("ArtifactError", 8),
        ("MeasurementError", 9),
        ("TaskError", 10),
        ("OutputError", 11),
        ("WorkerError", 12),
    ],
)
def test_exit_codes_are_the_documented_ones(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_no_two_error_classes_share_an_exit_code() -> None:
    classes = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, EdgeSDKError)
    ]
    codes = [kind.exit_code for kind in classes]
    assert len(classes) == 12
    assert len(set(codes)) == len(codes)


def test_message_says_found_expected_and_next() -> None:
    problem = UsageError("found it", expected="something else.", next_step="try again")
    assert str(problem) == "found it. Expected: something else. Next: try again."


def test_message_leaves_out_what_is_not_known() -> None:
    assert str(UsageError("only this")) == "only this."


def test_a_question_keeps_its_mark() -> None:
    assert str(UsageError("no 'lst'; did you mean 'list'?")) == "no 'lst'; did you mean 'list'?"


def test_details_are_copied() -> None:
    details = {"known": ["a"]}
    problem = UsageError("x", details=details)
    details["known"] = ["b"]
    assert problem.details == {"known": ["a"]}


def test_an_infeasible_budget_carries_its_result() -> None:
    marker = object()
    problem = errors.BudgetInfeasible("no", result=marker, next_step="loosen it")
    assert problem.result is marker
    assert "loosen it" in str(problem)


def test_near_names_ignore_case_and_keep_the_spelling() -> None:
    assert near_names("IPHONE_15", ["iPhone_15", "pixel"]) == ["iPhone_15"]


def test_near_names_are_best_first_and_few() -> None:
    known = ["executorch", "executorch2", "executorch_x", "executor", "tflite"]
    found = near_names("executorch", known, limit=2)
    assert found[0] == "executorch"
    assert len(found) == 2


def test_nothing_is_suggested_for_something_else_entirely() -> None:
    assert near_names("zzzz", ["host", "pixel"]) == []
    text = unknown_name("device", "zzzz", ["host"], listing="see the list")
    assert text == "unknown device 'zzzz'; see the list"


def test_an_unknown_name_suggests_the_near_one() -> None:
    text = unknown_name("device", "hots", ["host", "pixel"], listing="see the list")
    assert "did you mean 'host'?" in text
    assert text.startswith("unknown device 'hots'")
