"""Repairing what rounding broke: when it starts, how far it goes, and what the plan says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from blobs_task import blobs, uneven_blobs
from test_compression import plan_of

from edgesdk.artifact import Parity
from edgesdk.budget import Budget, Condition, Verdict
from edgesdk.cache import Cache
from edgesdk.device import DeviceProfile
from edgesdk.effort import Effort, EffortName
from edgesdk.figure import Figure
from edgesdk.parity import NoiseError
from edgesdk.plan import Plan, Quantize
from edgesdk.progress import Silent
from edgesdk.stages import repair
from edgesdk.stages.attempt import Attempt, carry_out
from edgesdk.stages.baseline import Baseline, establish_baseline
from edgesdk.stages.emission import Emitted
from edgesdk.stages.learning import learn_graph
from edgesdk.stages.proof import Proof
from edgesdk.stages.recovery import Recoverer
from edgesdk.stages.repair import carry_out_repaired
from edgesdk.stages.request import Request, resolve
from edgesdk.stages.runnable import Runnable
from edgesdk.task import Task

LIMIT = 0.02
BASELINE = cast(Baseline, None)  # these tests carry nothing out
PARITY = Parity(
    status="verified", runtime="", samples=1, sqnr_db=20.0, maximum_error=0.0,
    top1_agreement=None, checks=(),
)  # fmt: skip
PLAN = replace(plan_of(Quantize(scheme="int8")), scheme="int8", option="int8", reasons=("First.",))
KINDS = [["equalize", "bias_correction"], ["equalize", "adaround"], ["equalize", "qat"]]

Asking = Callable[..., Request]


@pytest.fixture
def asking(reference_device: DeviceProfile, tmp_path: Path) -> Asking:
    """Return a request for the reference target, taken to round as LiteRT's quantizer does."""

    def ask(effort: EffortName = "standard", task: Task | None = None) -> Request:
        request = resolve(
            task or blobs(), device=reference_device, target=None, budget=Budget(max_drop=LIMIT),
            effort=Effort(name=effort), accelerator="cpu", cache=Cache(tmp_path),
            progress=Silent(), needs_toolchain=False,
        )  # fmt: skip
        return replace(request, quantizer="ai-edge-quantizer")

    return ask


def attempt(plan: Plan, drop: float, *, latency_met: bool = True) -> Attempt:
    """Return an attempt scored on validation data with this drop."""
    figure = Figure(value=drop, standing="verified")
    condition = Condition(figure="accuracy_drop", limit=LIMIT)
    verdicts = [Verdict(condition=condition, met=drop <= LIMIT, figure=figure, reason="")]
    if not latency_met:
        slow = Figure(value=9.0, standing="measured")
        limit = Condition(figure="latency_ms", limit=1.0)
        verdicts.append(Verdict(condition=limit, met=False, figure=slow, reason=""))
    proof = Proof(
        runnable=Runnable(
            emitted=cast(Emitted, None), parity=PARITY, golden=(), golden_outputs=()
        ),
        verified={}, interpreted={}, predicted={}, measured={}, split="validation", left_open=(),
    )  # fmt: skip
    met = all(verdict.met for verdict in verdicts)
    return Attempt(
        status="ok" if met else "infeasible", plan=plan, baseline={}, verdicts=tuple(verdicts),
        proof=proof,
    )  # fmt: skip


class Ladder:
    """Stands for carrying out: every rung has the drop a test gives it, or an error instead."""

    def __init__(self, *drops: float | NoiseError) -> None:
        self.drops = list(drops)
        self.steps: list[list[str]] = []

    def __call__(self, request: Request, plan: Plan, baseline: object, **how: object) -> Attempt:
        assert how == {"split": "validation", "measure": False}
        assert plan.steps[-1] == Quantize(scheme="int8")
        self.steps.append([step.kind for step in plan.steps[:-1]])
        drop = self.drops.pop(0)
        if isinstance(drop, NoiseError):
            raise drop
        return attempt(plan, drop)


Climbing = Callable[..., tuple[Attempt | None, int]]


@pytest.fixture
def climbing(monkeypatch: pytest.MonkeyPatch) -> Climbing:
    def climb(
        request: Request, ladder: Ladder, first: Callable[[], Attempt], *,
        trainings: int = 3, breaks: bool = False,
    ) -> tuple[Attempt | None, int]:  # fmt: skip
        monkeypatch.setattr(repair, "carry_out", ladder)
        return carry_out_repaired(
            request, Recoverer(request), PLAN, BASELINE, first=first, trainings=trainings,
            breaks=breaks,
        )  # fmt: skip

    return climb


def test_nothing_is_repaired_that_keeps_the_limit(asking: Asking, climbing: Climbing) -> None:
    ladder = Ladder()
    found, trained = climbing(asking(), ladder, lambda: attempt(PLAN, 0.01))
    assert found is not None
    assert (found.plan, trained, ladder.steps) == (PLAN, 0, [])


@pytest.mark.parametrize("rungs", [1, 2, 3])
def test_it_stops_at_the_first_rung_that_keeps_the_limit_and_says_why_it_went_there(
    rungs: int, asking: Asking, climbing: Climbing
) -> None:
    ladder = Ladder(*[0.05, 0.04, 0.03][: rungs - 1], 0.015)
    found, trained = climbing(asking(), ladder, lambda: attempt(PLAN, 0.1))
    assert found is not None
    assert ladder.steps == KINDS[:rungs]
    assert [step.kind for step in found.plan.steps] == [*KINDS[rungs - 1], "quantize"]
    assert (found.status, trained) == ("ok", int(rungs == 3))
    assert found.plan.reasons[0] == "First."
    said = found.plan.reasons[1:]
    assert len(said) == rungs
    assert "As it is: Accuracy drop 10.00 % verified, limit 2.00 %, so ranges are equal" in said[0]
    assert all("After that: Accuracy drop" in reason for reason in said[1:])
    assert ("QAT" in said[-1]) == (rungs == 3)
    assert found.plan.steps_sha256 != PLAN.steps_sha256


def test_where_no_rung_is_enough_the_smallest_drop_is_the_attempt(
    asking: Asking, climbing: Climbing
) -> None:
    ladder = Ladder(0.08, 0.03, 0.06)
    found, trained = climbing(asking(), ladder, lambda: attempt(PLAN, 0.1))
    assert found is not None
    assert (found.status, trained) == ("infeasible", 1)
    assert [step.kind for step in found.plan.steps] == ["equalize", "adaround", "quantize"]


def test_effort_and_data_bound_it_and_the_plan_says_what_more_would_do(
    asking: Asking, climbing: Climbing
) -> None:
    quick = Ladder(0.05)
    found, _ = climbing(asking("quick"), quick, lambda: attempt(PLAN, 0.1))
    assert found is not None
    assert quick.steps == KINDS[:1]
    assert "'standard' would choose each weight's rounding" in found.plan.reasons[-1]
    dataless = Ladder(0.05, 0.01)
    request = asking(task=replace(blobs(), training=None))
    found, _ = climbing(request, dataless, lambda: attempt(PLAN, 0.1))
    assert found is not None
    assert (found.status, dataless.steps) == ("ok", KINDS[:2])
    assert "no training data; with it, training with rounding" in found.plan.reasons[-1]
    spent = Ladder(0.05, 0.04)
    climbing(asking(), spent, lambda: attempt(PLAN, 0.1), trainings=0)
    assert spent.steps == KINDS[:2]


def test_thorough_trains_longer(asking: Asking, climbing: Climbing) -> None:
    epochs = []
    for effort in ("standard", "thorough"):
        found, _ = climbing(asking(effort), Ladder(0.1, 0.1, 0.0), lambda: attempt(PLAN, 0.1))
        assert found is not None
        epochs.append(found.plan.steps[1].epochs)  # type: ignore[union-attr]
    assert epochs[1] > 2 * epochs[0]


def test_what_rounding_did_not_break_is_left_alone(asking: Asking, climbing: Climbing) -> None:
    """Another limit is broken too; the float network is as bad; nobody knows the grids."""
    first: Callable[[], Attempt] = lambda: attempt(PLAN, 0.1)  # noqa: E731
    assert climbing(asking(), Ladder(), lambda: attempt(PLAN, 0.1, latency_met=False))[1] == 0
    unknown = replace(asking(), quantizer=None)
    assert climbing(unknown, Ladder(), first)[0] is not None

    ruined = replace(blobs(), evaluate=lambda predict, split: 0.5)
    assert climbing(asking(task=ruined), Ladder(0.0), first)[0] is not None


def test_a_file_too_far_off_to_score_is_repaired_where_simulation_explains_it(
    asking: Asking, climbing: Climbing
) -> None:
    def collapsed() -> Attempt:
        raise NoiseError("signal to noise is -0.4 dB")

    ladder = Ladder(NoiseError("signal to noise is 5 dB"), 0.01)
    found, _ = climbing(asking(), ladder, collapsed, breaks=True)
    assert found is not None
    assert found.status == "ok"
    assert "As it is: signal to noise is -0.4 dB, so ranges" in found.plan.reasons[1]
    hopeless = Ladder(*[NoiseError("noise")] * 3)
    assert climbing(asking(), hopeless, collapsed, breaks=True) == (None, 1)
    with pytest.raises(NoiseError):
        climbing(asking(), Ladder(), collapsed, breaks=False)


@pytest.mark.slow
@pytest.mark.toolchain
def test_on_the_real_runtime_an_int8_collapse_is_repaired_without_training(
    tmp_path: Path,
) -> None:
    """Files are emitted and scored: int8 as it is loses more than allowed, equalised less."""
    request = resolve(
        uneven_blobs(), device="samsung_galaxy_s24", target="tflite",
        budget=Budget(max_drop=LIMIT), effort=Effort(name="quick"), accelerator="cpu",
        cache=Cache(tmp_path), progress=Silent(), needs_toolchain=True,
    )  # fmt: skip
    baseline = establish_baseline(request, learn_graph(request))
    found, trained = carry_out_repaired(
        request, Recoverer(request), PLAN, baseline, trainings=0, breaks=True,
        first=lambda: carry_out(request, PLAN, baseline, split="validation", measure=False),
    )  # fmt: skip
    assert found is not None
    assert found.proof is not None
    assert (found.status, trained) == ("ok", 0)
    assert [step.kind for step in found.plan.steps] == [*KINDS[0], "quantize"]
    assert found.proof.verified["accuracy_drop"].value <= LIMIT
    assert found.plan.reasons[1].startswith("As it is: ")
