import pytest

from edgesdk.budget import Condition, Verdict, judge
from edgesdk.caution import cautions
from edgesdk.figure import Figure, Figures, predicted

LATENCY = Condition(figure="latency_ms", limit=8.0)
DROP = Condition(figure="accuracy_drop", limit=0.95)


def scored(drop: float, accuracy: float) -> Figures:
    return {
        "latency_ms": Figure(value=4.0, standing="measured"),
        "accuracy": Figure(value=accuracy, standing="verified"),
        "accuracy_drop": Figure(value=drop, standing="verified"),
    }


def verdicts(*conditions: Condition, known: Figures) -> tuple[Verdict, ...]:
    return tuple(judge(condition, [known]) for condition in conditions)


def test_a_loss_that_no_limit_forbids_is_named() -> None:
    known = scored(0.9075, 0.0775)
    [sentence] = cautions(verdicts(LATENCY, known=known), [known])
    assert "lost 90.75 % of accuracy (7.75 % is left)" in sentence
    assert "--max-drop" in sentence


def test_a_loss_that_was_allowed_is_not_named() -> None:
    known = scored(0.9075, 0.0775)
    assert cautions(verdicts(LATENCY, DROP, known=known), [known]) == ()


@pytest.mark.parametrize("drop", [-0.01, 0.0, 0.01])
def test_a_point_is_no_reason_for_a_caution(drop: float) -> None:
    known = scored(drop, 0.98)
    assert cautions(verdicts(LATENCY, known=known), [known]) == ()


def test_a_prediction_is_said_to_be_one_and_what_was_run_comes_before_it() -> None:
    guess: Figures = {"accuracy_drop": predicted(0.4, error_factor=1.2, source="simulated")}
    [sentence] = cautions((), [guess])
    assert "is predicted to lose 40.00 %" in sentence
    assert cautions((), [guess, scored(0.0, 0.98)]) == ()


def test_a_task_that_cannot_be_scored_has_nothing_to_be_cautious_of() -> None:
    assert cautions((), [{"latency_ms": Figure(value=4.0, standing="measured")}]) == ()
