from collections.abc import Sequence
from dataclasses import replace

import pytest
from knowing import COMPUTER, FULL, HALF, formats, sensitivity

from edgesdk.budget import Condition, Verdict
from edgesdk.figure import Figure
from edgesdk.graph import OpGraph
from edgesdk.plan import Distil, Plan, Prune, PrunedGroup, Quantize
from edgesdk.planner.explanation import Recovery, broken_verdicts, explain_verdict, write_plan
from edgesdk.planner.options import option_for
from edgesdk.planner.search import Assessment, Decision
from edgesdk.planner.sensitivity import GroupCurve, Sensitivity
from edgesdk.planner.widths import WidthModel, Widths

GROUP = PrunedGroup(layer="conv", width_before=8, removed=(0, 1, 2, 3))
DISTIL = Recovery(
    step=Distil(epochs=7, learning_rate=0.1, temperature=4.0, alpha=0.5, patience=2),
    reason="Seven epochs recover it.",
)
NOTHING = Recovery(step=None, reason="Nothing can be trained.")
SENSITIVITY = replace(
    sensitivity(points=formats({"fp32": 0.0, "int8": 0.0}), samples=99),
    channel_multiple=8,
    notes=("something was seen",),
)
RUNTIME = replace(COMPUTER.runtime[0], unit="npu")
DEVICE = replace(COMPUTER, title="A Phone", name="phone", runtime=(RUNTIME,))
LATENCY = Condition(figure="latency_ms", limit=8.0)
TOO_SLOW = Verdict(
    condition=LATENCY,
    met=False,
    figure=Figure(value=6.0, standing="predicted", low=3.0, high=12.0),
    reason="",
)
FITS = replace(TOO_SLOW, met=True)


def assessment(scheme: str, widths: Widths, *verdicts: Verdict, gap: float = 0.0) -> Assessment:
    return Assessment(
        option=option_for(widths, FULL, "int8" if scheme == "int8" else "fp32"),
        expected_loss=0.25,
        predicted={},
        verdicts=verdicts,
        plausible=all(verdict.met for verdict in verdicts),
        possible=all(verdict.met for verdict in verdicts),
        gap=gap,
    )


SLOW = assessment("fp32", FULL, TOO_SLOW)
FAST = assessment("int8", HALF, FITS)
WORSE = assessment("fp32", HALF, FITS)


def decision(*assessments: Assessment, max_drop: float | None = None) -> Decision:
    drops = () if max_drop is None else (Condition(figure="accuracy_drop", limit=max_drop),)
    return Decision(
        chosen=next((a for a in assessments if a.plausible), None),
        nearest=assessments[0],
        assessments=assessments,
        conditions=(LATENCY, *drops),
        feasibility=(),
        objective="least expected loss" if max_drop is None else "least latency",
    )


def written(
    taken: Assessment,
    made: Decision,
    recovery: Recovery = DISTIL,
    known: Sensitivity = SENSITIVITY,
) -> Plan:
    return write_plan(
        taken,
        made,
        known,
        task="t",
        task_key="k",
        device=DEVICE,
        runtime=RUNTIME,
        recovery=recovery,
        refused={"fp16": "the unit has none"},
        baseline={},
        seed=3,
    )


def test_a_plan_prunes_then_recovers_then_quantizes() -> None:
    plan = written(FAST, decision(SLOW, FAST, WORSE))
    assert plan.steps == (
        Prune(ratio=0.5, channel_multiple=8, importance="taylor", groups=(GROUP,)),
        DISTIL.step,
        Quantize(scheme="int8"),
    )
    assert (plan.option, plan.scheme, plan.device) == ("int8, pruned 50 %", "int8", "phone")
    assert (plan.target, plan.seed, plan.task_key) == ("tflite", 3, "k")


def test_a_step_that_does_nothing_is_not_taken() -> None:
    assert written(SLOW, decision(SLOW)).steps == ()
    assert [type(step) for step in written(WORSE, decision(WORSE)).steps] == [Prune, Distil]
    without = written(WORSE, decision(WORSE), recovery=NOTHING)
    assert [type(step) for step in without.steps] == [Prune]


@pytest.mark.parametrize("recovery", [DISTIL, NOTHING])
def test_the_reasons_say_what_recovers(recovery: Recovery) -> None:
    assert recovery.reason in written(FAST, decision(FAST), recovery).reasons


def test_the_reasons_say_why_this_and_on_what_it_rests() -> None:
    reasons = " ".join(written(FAST, decision(SLOW, FAST)).reasons)
    for said in (
        "least expected loss", "A Phone (litert on npu)", "Latency 6 ms", "limit 8 ms",
        "99 calibration inputs", "KL divergence", "taylor", "multiples of 8",
        "fp16 is not offered: the unit has none", "Note: something was seen",
    ):  # fmt: skip
        assert said in reasons


def test_a_probed_option_is_not_said_to_miss_because_another_promises_a_little_less() -> None:
    better = replace(WORSE, expected_loss=0.24)
    reasons = " ".join(written(FAST, decision(better, FAST)).reasons)
    assert "int8, pruned 50 % was probed and fits A Phone" in reasons
    assert "fp32, pruned 50 % promises too little less loss (0.24 for 0.25)" in reasons
    assert "No option fits" not in reasons


def test_a_squared_error_is_not_called_a_divergence() -> None:
    known = replace(SENSITIVITY, formats=formats({"fp32": 0.0, "int8": 0.0}, disagreement=None))
    reasons = " ".join(written(FAST, decision(FAST), known=known).reasons)
    assert "relative squared error" in reasons
    assert "KL divergence" not in reasons


def narrowed(kept: Sequence[int], gap: float = 0.0) -> list[str]:
    """Return the reasons of a plan that keeps so many of the eight channels of each group."""
    full = (8,) * len(kept)
    curve = SENSITIVITY.curves[0]
    curves = tuple(
        GroupCurve(layer=f"conv{i}", order=curve.order, choices=(k, 8), losses=(1.0, 0.0))
        if k < 8
        else GroupCurve(layer=f"conv{i}", order=curve.order, choices=(8,), losses=(0.0,))
        for i, k in enumerate(kept)
    )
    model = WidthModel(
        graph=OpGraph(model="m", ops=(), tensors={}),
        groups=tuple(c.layer for c in curves),
        full=full,
        extents=(),
    )
    known = replace(SENSITIVITY, widths=model, curves=curves)
    option = option_for(tuple(kept), full, "fp32")
    taken = replace(FAST, option=option, gap=gap)
    return list(written(taken, decision(taken), known=known).reasons)


def test_the_groups_that_give_way_most_are_named() -> None:
    text = " ".join(narrowed([6, 8, 2, 4]))
    assert "conv2 8 to 2, conv3 8 to 4, conv0 8 to 6; 1 of 4 groups stay whole" in text
    assert "conv1" not in text


def test_heads_are_counted_in_heads() -> None:
    known = replace(SENSITIVITY, curves=(replace(SENSITIVITY.curves[0], heads=2),))
    taken = replace(FAST, option=option_for((4,), (8,), "fp32"))
    text = " ".join(written(taken, decision(taken), known=known).reasons)
    assert "conv 2 to 1 heads" in text
    assert "8 to 4" not in text


def test_only_some_of_many_groups_are_named() -> None:
    text = " ".join(narrowed([7, 6, 5, 4, 3, 2]))
    assert "conv5 8 to 2, conv4 8 to 3, conv3 8 to 4, conv2 8 to 5 and 2 more groups" in text
    assert "0 of 6 groups stay whole" in text


def test_a_gap_is_said_and_a_proven_optimum_is_not_doubted() -> None:
    assert "less than 97.5% of its loss" in " ".join(narrowed([4], gap=0.025))
    assert "of its loss" not in " ".join(narrowed([4]))
    assert "stay whole" not in " ".join(written(SLOW, decision(SLOW)).reasons)


def test_the_nearest_plan_never_claims_to_fit() -> None:
    plan = written(SLOW, decision(SLOW))
    assert plan.reasons[0].startswith("No option fits")
    assert "among the options that fit" not in " ".join(plan.reasons)


def test_what_was_not_taken_is_listed_with_its_reason() -> None:
    plan = written(FAST, decision(SLOW, FAST, WORSE))
    reasons = {item.option: item.reason for item in plan.rejected}
    assert set(reasons) == {"fp32", "fp32, pruned 50 %"}
    assert "limit 8 ms" in reasons["fp32"]
    assert reasons["fp32, pruned 50 %"].startswith("fits, but")


@pytest.mark.parametrize(("max_drop", "said"), [(0.01, "1 %"), (0.0, "0 %"), (-0.02, "-2 %")])
def test_the_fastest_within_a_drop_is_said_aloud(max_drop: float, said: str) -> None:
    reasons = " ".join(written(FAST, decision(FAST, max_drop=max_drop)).reasons)
    assert f"within a drop of {said} is sought" in reasons


def test_a_verdict_is_explained_with_interval_standing_and_whose_limit() -> None:
    assert explain_verdict(TOO_SLOW) == (
        "Latency 6 ms (between 3 ms and 12 ms) predicted, limit 8 ms"
    )
    flash = Verdict(
        condition=Condition(figure="flash_bytes", limit=1000, asked_by="device"),
        met=False,
        figure=Figure(value=2000, standing="verified", low=1.0, high=3.0),
        reason="",
    )
    assert explain_verdict(flash) == "Flash 2 kB verified, limit of the device 1 kB"
    unknown = Verdict(condition=LATENCY, met=False, figure=None, reason="is not known")
    assert explain_verdict(unknown) == "is not known"


def test_broken_verdicts_are_those_not_met() -> None:
    assert broken_verdicts([FITS, TOO_SLOW, FITS]) == [TOO_SLOW]
