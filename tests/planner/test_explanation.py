from dataclasses import replace

import pytest

from edgesdk.budget import Condition, Verdict
from edgesdk.device import DeviceProfile, Runtime
from edgesdk.figure import Figure
from edgesdk.graph import OpGraph
from edgesdk.plan import Distil, Finetune, Plan, Prune, PrunedGroup, Quantize
from edgesdk.planner.explanation import broken_verdicts, explain_verdict, write_plan
from edgesdk.planner.options import Option, PruningCandidate
from edgesdk.planner.search import Assessment, Decision
from edgesdk.planner.sensitivity import Sensitivity, SensitivityPoint
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity

GROUP = PrunedGroup(layer="conv", width_before=8, removed=(0, 1))
GRAPH = OpGraph(model="m", ops=(), tensors={})
DISTIL = Distil(epochs=7, learning_rate=0.1, temperature=4.0, alpha=0.5, patience=2)
SENSITIVITY = Sensitivity(
    channel_multiple=8,
    importance="taylor",
    inputs="calibration",
    samples=99,
    metric=0.9,
    metric_samples=99,
    drop_range=(-1.0, 1.0),
    candidates=(
        PruningCandidate(ratio=0.0, groups=(), graph=GRAPH),
        PruningCandidate(ratio=0.25, groups=(GROUP,), graph=GRAPH),
    ),
    points=(SensitivityPoint(candidate=0, scheme="fp32", loss=0, disagreement=0.0, drop=0.0),),
    notes=("something was seen",),
)
NUMBER = Quantity(value=1.0, source="a test", kind="estimated")
COST = PrecisionCost(
    mac_per_s=NUMBER,
    bytes_per_s=NUMBER,
    op_overhead_s=NUMBER,
    inference_overhead_s=NUMBER,
    error_factor=NUMBER,
)
RUNTIME = Runtime(
    target="tflite",
    delegate="",
    runtime="litert",
    minimum_version="1",
    unit="npu",
    threads=1,
    channel_multiple=8,
    weights_in_ram=True,
    integer_io=False,
    precisions={"fp32": COST},
)
DEVICE = DeviceProfile(
    schema_version=1,
    name="phone",
    title="A Phone",
    kind="phone",
    processor="p",
    ram_bytes=NUMBER,
    runtime=(RUNTIME,),
)
LATENCY = Condition(figure="latency_ms", limit=8.0)
TOO_SLOW = Verdict(
    condition=LATENCY,
    met=False,
    figure=Figure(value=6.0, standing="predicted", low=3.0, high=12.0),
    reason="",
)
FITS = replace(TOO_SLOW, met=True)


def assessment(name: str, candidate: int, *verdicts: Verdict) -> Assessment:
    scheme = "int8" if name.startswith("int8") else "fp32"
    return Assessment(
        option=Option(candidate=candidate, scheme=scheme, name=name),
        loss=0.25,
        expected_loss=0.25,
        predicted={},
        verdicts=verdicts,
        plausible=all(verdict.met for verdict in verdicts),
    )


SLOW = assessment("fp32", 0, TOO_SLOW)
FAST = assessment("int8, pruned 25 %", 1, FITS)
WORSE = assessment("fp32, pruned 25 %", 1, FITS)


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


def written(taken: Assessment, made: Decision, recovery: Distil | Finetune | None = DISTIL) -> Plan:
    return write_plan(
        taken,
        made,
        SENSITIVITY,
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
        Prune(ratio=0.25, channel_multiple=8, importance="taylor", groups=(GROUP,)),
        DISTIL,
        Quantize(scheme="int8"),
    )
    assert (plan.option, plan.scheme, plan.device) == ("int8, pruned 25 %", "int8", "phone")
    assert (plan.target, plan.seed, plan.task_key) == ("tflite", 3, "k")


def test_a_step_that_does_nothing_is_not_taken() -> None:
    assert written(SLOW, decision(SLOW)).steps == ()
    assert [type(step) for step in written(WORSE, decision(WORSE)).steps] == [Prune, Distil]
    without = written(WORSE, decision(WORSE), recovery=None)
    assert [type(step) for step in without.steps] == [Prune]


@pytest.mark.parametrize(
    ("recovery", "said"),
    [(DISTIL, "7 epochs"), (Finetune(), "finetune()"), (None, "no training data")],
)
def test_the_reasons_say_what_recovers(recovery: Distil | Finetune | None, said: str) -> None:
    reasons = " ".join(written(FAST, decision(FAST), recovery).reasons)
    assert said in reasons


def test_the_reasons_say_why_this_and_on_what_it_rests() -> None:
    reasons = " ".join(written(FAST, decision(SLOW, FAST)).reasons)
    for said in (
        "least expected loss", "A Phone (litert on npu)", "latency_ms 6 ms", "limit 8 ms",
        "99 calibration inputs", "KL divergence", "taylor", "multiples of 8",
        "fp16 is not offered: the unit has none", "Note: something was seen",
    ):  # fmt: skip
        assert said in reasons


def test_the_nearest_plan_never_claims_to_fit() -> None:
    plan = written(SLOW, decision(SLOW))
    assert plan.reasons[0].startswith("No option fits")
    assert "among the options that fit" not in " ".join(plan.reasons)


def test_what_was_not_taken_is_listed_with_its_reason() -> None:
    plan = written(FAST, decision(SLOW, FAST, WORSE))
    reasons = {item.option: item.reason for item in plan.rejected}
    assert set(reasons) == {"fp32", "fp32, pruned 25 %"}
    assert "limit 8 ms" in reasons["fp32"]
    assert reasons["fp32, pruned 25 %"].startswith("fits, but")


@pytest.mark.parametrize(("max_drop", "said"), [(0.01, "1 %"), (0.0, "0 %"), (-0.02, "-2 %")])
def test_the_fastest_within_a_drop_is_said_aloud(max_drop: float, said: str) -> None:
    reasons = " ".join(written(FAST, decision(FAST, max_drop=max_drop)).reasons)
    assert f"within a drop of {said} is sought" in reasons


def test_a_verdict_is_explained_with_interval_standing_and_whose_limit() -> None:
    assert explain_verdict(TOO_SLOW) == (
        "latency_ms 6 ms (between 3 ms and 12 ms) predicted, limit 8 ms"
    )
    flash = Verdict(
        condition=Condition(figure="flash_bytes", limit=1000, asked_by="device"),
        met=False,
        figure=Figure(value=2000, standing="verified", low=1.0, high=3.0),
        reason="",
    )
    assert explain_verdict(flash) == "flash_bytes 2 kB verified, limit of the device 1 kB"
    unknown = Verdict(condition=LATENCY, met=False, figure=None, reason="is not known")
    assert explain_verdict(unknown) == "is not known"


def test_broken_verdicts_are_those_not_met() -> None:
    assert broken_verdicts([FITS, TOO_SLOW, FITS]) == [TOO_SLOW]
