"""The loop of planning, probing and correcting, with attempts that end as a test says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from blobs_task import blobs, lively_blobs

from edgesdk.artifact import Parity
from edgesdk.budget import Budget, Condition, Relative, Verdict
from edgesdk.cache import Cache
from edgesdk.cost.latency import predict_latency
from edgesdk.device import DeviceProfile
from edgesdk.effort import Effort
from edgesdk.figure import Figure, FigureName
from edgesdk.plan import AdaRound, Plan, Prune, Quantize
from edgesdk.planner.options import Option
from edgesdk.planner.prediction import predict_costs
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.progress import Silent
from edgesdk.stages import feedback, repair
from edgesdk.stages.attempt import Attempt
from edgesdk.stages.baseline import Baseline, predict_baseline
from edgesdk.stages.compression import trains
from edgesdk.stages.emission import Emitted
from edgesdk.stages.feedback import Knowledge, decide_only, find_attempt
from edgesdk.stages.learning import learn_graph, learn_sensitivity
from edgesdk.stages.proof import Proof
from edgesdk.stages.request import Request, resolve
from edgesdk.stages.runnable import Runnable
from edgesdk.task import Split, Task

PARITY = Parity(
    status="verified", runtime="", samples=1, sqnr_db=200.0, maximum_error=0.0,
    top1_agreement=None, checks=(),
)  # fmt: skip
# These tests emit nothing.
RUNNABLE = Runnable(emitted=cast(Emitted, None), parity=PARITY, golden=(), golden_outputs=())


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared-cache")


Asking = Callable[..., tuple[Request, Sensitivity, Baseline]]


@pytest.fixture
def asking(reference_device: DeviceProfile, shared_cache: Path) -> Asking:
    def ask(
        budget: Budget, effort: Effort | None = None, *,
        device: str | DeviceProfile = reference_device, target: str | None = None,
        task: Callable[[], Task] = blobs,
    ) -> tuple[Request, Sensitivity, Baseline]:  # fmt: skip
        request = resolve(
            task(),
            device=device,
            target=target,
            budget=budget,
            effort=effort or Effort(),
            accelerator="cpu",
            cache=Cache(shared_cache),
            progress=Silent(),
            needs_toolchain=False,
        )
        graph = learn_graph(request)
        return request, learn_sensitivity(request, graph), predict_baseline(request, graph)

    return ask


Missed = FigureName | tuple[FigureName, float] | None


class Script:
    """Stands for carrying plans out: a function says which figure of an attempt misses, and how
    large it is where that matters."""

    def __init__(self, misses: Callable[[Plan, Split | None, bool], Missed]) -> None:
        self.misses = misses
        self.calls: list[tuple[str, Split | None, bool]] = []
        self.trained: list[str] = []

    def __call__(
        self, request: Request, plan: Plan, baseline: Baseline, *, split: Split | None,
        measure: bool, recovered: bool = True,
    ) -> Attempt:  # fmt: skip
        self.calls.append((plan.option, split, recovered))
        if split == "validation" and recovered and trains(plan.steps):
            self.trained.append(plan.option)
        missed = self.misses(plan, split, recovered)
        verified: dict[FigureName, Figure] = {}
        verdicts: tuple[Verdict, ...] = ()
        if missed is not None:
            name, value = missed if isinstance(missed, tuple) else (missed, 1e12)
            verified[name] = Figure(value=value, standing="verified")
            condition = Condition(figure=name, limit=1.0)
            verdicts = (
                Verdict(condition=condition, met=False, figure=verified[name], reason="too much"),
            )
        proof = Proof(
            runnable=RUNNABLE, verified=verified, interpreted={},
            predicted={}, measured={}, split=split, left_open=(),
        )  # fmt: skip
        return Attempt(
            status="ok" if missed is None else "infeasible",
            plan=plan,
            baseline=baseline.figures,
            verdicts=verdicts,
            reason="it misses" if missed else "",
            proof=proof,
        )


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Script]:
    def install(misses: Any) -> Script:
        script = Script(misses)
        monkeypatch.setattr(feedback, "carry_out", script)
        return script

    return install


SMALL = Budget(size_bytes=Relative(fraction=0.5), max_drop=0.05)
Scripted = Callable[[Any], Script]


def test_a_shape_is_probed_then_trained_then_looked_at_once_on_test(
    asking: Asking, scripted: Scripted
) -> None:
    script = scripted(lambda *_: None)
    found = find_attempt(*asking(SMALL))
    assert found.status == "ok"
    assert trains(found.plan.steps)
    option = found.plan.option
    assert script.calls == [
        (option, None, False),
        (option, "validation", True),
        (option, "test", True),
    ]


def test_int8_that_rounding_broke_is_repaired_before_it_is_given_up(
    asking: Asking, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_by_rounding(plan: Plan, split: Split | None, recovered: bool) -> Missed:
        repaired = any(isinstance(step, AdaRound) for step in plan.steps)
        broken = plan.scheme == "int8" and split == "validation" and not repaired
        return ("accuracy_drop", 5.0) if broken else None

    request, sensitivity, baseline = asking(
        Budget(size_bytes=Relative(fraction=0.5)), device="samsung_galaxy_s24", target="executorch"
    )
    script = scripted(broken_by_rounding)
    monkeypatch.setattr(repair, "carry_out", script)
    found = find_attempt(request, sensitivity, baseline)
    assert (found.status, found.plan.scheme) == ("ok", "int8")
    kinds = [step.kind for step in found.plan.steps]
    assert kinds == ["prune", "distil", "equalize", "adaround", "quantize"]
    assert [(split, recovered) for _, split, recovered in script.calls] == [
        (None, False), ("validation", True), ("validation", True), ("validation", True),
        ("test", True),
    ]  # fmt: skip
    unknown = find_attempt(replace(request, quantizer=None), sensitivity, baseline)
    assert unknown.plan.steps[-1] == Quantize(scheme="int8")
    assert not any(isinstance(step, AdaRound) for step in unknown.plan.steps)
    assert unknown.status == "infeasible"


def test_without_training_validation_is_scored_by_the_probe(
    asking: Asking, scripted: Scripted
) -> None:
    script = scripted(lambda *_: None)
    budget = Budget(size_bytes=Relative(fraction=0.6), max_drop=0.05)
    found = find_attempt(*asking(budget, task=lively_blobs))
    option = found.plan.option
    assert not trains(found.plan.steps)
    assert script.calls == [(option, "validation", True), (option, "test", True)]


def test_a_shape_that_misses_is_not_trained_and_what_it_taught_is_used(
    asking: Asking, scripted: Scripted
) -> None:
    """Files are half as large again as predicted, which the first that is emitted shows."""
    request, known, baseline = asking(Budget(size_bytes=Relative(fraction=0.5)))
    known = replace(known, splits=())
    limit = 0.5 * baseline.figures["size_bytes"].value
    sizes: dict[str, list[float]] = {}

    def real_size(plan: Plan, split: Split | None, recovered: bool) -> Missed:
        kept = {
            g.layer: g.width_after for s in plan.steps if isinstance(s, Prune) for g in s.groups
        }
        groups = zip(known.widths.groups, known.widths.full, strict=True)
        graph = known.widths.at(tuple(kept.get(layer, full) for layer, full in groups))
        size = 1.5 * predict_costs(graph, request.runtime, plan.scheme)["size_bytes"].value
        sizes.setdefault(plan.scheme, []).append(size)
        return None if size <= limit else ("size_bytes", size)

    script = scripted(real_size)
    found = find_attempt(request, known, baseline)
    assert found.status == "ok"
    assert script.trained == [found.plan.option]
    # In a format the first guess misses. From then on the limit is aimed at with what is known.
    first, *later = sizes[found.plan.scheme]
    assert first > limit
    assert all(0.7 * limit < size <= limit for size in later)
    assert all(size <= limit for _, *others in sizes.values() for size in others)


def test_what_training_does_not_recover_is_given_up_after_three(
    asking: Asking, scripted: Scripted
) -> None:
    def never_recovers(plan: Plan, split: Split | None, recovered: bool) -> Missed:
        if not trains(plan.steps):
            return "size_bytes"
        return "accuracy_drop" if recovered else None

    script = scripted(never_recovers)
    found = find_attempt(*asking(SMALL))
    assert found.status == "infeasible"
    assert len(script.trained) == 3
    assert len(set(script.trained)) == 3
    assert "after training 3 of them" in found.reason
    assert len(script.calls) <= 6 + feedback._MAXIMUM_HOPES


def test_after_three_trainings_in_vain_what_needs_none_is_still_tried(
    asking: Asking, scripted: Scripted
) -> None:
    def never_recovers(plan: Plan, split: Split | None, recovered: bool) -> Missed:
        return "accuracy_drop" if recovered and trains(plan.steps) else None

    script = scripted(never_recovers)
    found = find_attempt(*asking(Budget(max_drop=0.05)))
    assert found.status == "ok"
    assert not trains(found.plan.steps)
    assert len(script.trained) == 3


def test_nothing_is_chosen_again_after_test_data_was_seen(
    asking: Asking, scripted: Scripted
) -> None:
    def refuted(plan: Plan, split: Split | None, recovered: bool) -> Missed:
        return "accuracy_drop" if split == "test" else None

    script = scripted(refuted)
    found = find_attempt(*asking(SMALL))
    assert found.status == "infeasible"
    assert [split for _, split, _ in script.calls].count("test") == 1
    assert script.calls[-1][1] == "test"


def test_the_search_ends_though_everything_misses(asking: Asking, scripted: Scripted) -> None:
    script = scripted(lambda *_: "size_bytes")
    found = find_attempt(*asking(Budget(size_bytes=Relative(fraction=0.9))))
    assert found.status == "infeasible"
    assert len(script.calls) <= feedback._MAXIMUM_PROBES
    assert found.feasibility


def test_what_cannot_fit_is_not_even_probed(asking: Asking, scripted: Scripted) -> None:
    script = scripted(lambda *_: None)
    found = find_attempt(*asking(Budget(size_bytes=10)))
    assert found.status == "infeasible"
    assert script.calls == []
    assert found.proof is None
    assert "nearest is" in found.reason


@pytest.mark.parametrize(("keeps", "status"), [(True, "ok"), (False, "infeasible")])
def test_what_only_the_best_of_an_interval_keeps_is_probed_before_it_is_refused(
    asking: Asking, scripted: Scripted, *, keeps: bool, status: str
) -> None:
    [row] = find_attempt(*asking(Budget(size_bytes=1.0))).feasibility
    assert row.smallest is not None
    script = scripted(lambda *_: None if keeps else "size_bytes")
    found = find_attempt(*asking(Budget(size_bytes=0.99 * row.smallest)))
    assert found.status == status
    assert 1 <= len({option for option, _, _ in script.calls}) <= 3
    assert bool(script.trained) == keeps


def test_planning_alone_carries_nothing_out(asking: Asking, scripted: Scripted) -> None:
    script = scripted(lambda *_: None)
    assert decide_only(*asking(SMALL)).status == "ok"
    assert decide_only(*asking(Budget(size_bytes=10))).status == "infeasible"
    assert script.calls == []


def test_knowledge_adds_up_and_is_never_changed() -> None:
    latency = Figure(value=1.0, standing="measured")
    size = Figure(value=2.0, standing="verified")
    int8, fp32 = (Option(scheme=scheme, widths=(8,), name="") for scheme in ("int8", "fp32"))
    empty = Knowledge()
    one = empty.with_figures(int8, {"latency_ms": latency})
    two = one.with_figures(int8, {"size_bytes": size}).with_figures(fp32, {"size_bytes": size})
    assert empty.learned == {}
    assert one.learned == {int8: {"latency_ms": latency}}
    assert two.learned[int8] == {"latency_ms": latency, "size_bytes": size}
    assert set(two.learned) == {int8, fp32}


def test_a_measurement_corrects_predictions_of_its_scheme(asking: Asking) -> None:
    request, _, baseline = asking(SMALL)
    predicted_ms = predict_latency(baseline.graph, request.runtime, "fp32").total.value
    latency = Figure(value=3 * predicted_ms, standing="measured")
    knowledge = Knowledge().with_latency(request, baseline.graph, "fp32", latency)
    corrected = knowledge.corrected(request).runtime_for("numpy")
    after = predict_latency(baseline.graph, corrected, "fp32").total
    assert after.value == pytest.approx(3 * predicted_ms, rel=0.02)
    assert corrected.precisions["fp16"] == request.runtime.precisions["fp16"]
    assert Knowledge().corrected(request) is request.device


def test_a_relative_latency_is_compared_in_the_baselines_time(asking: Asking) -> None:
    request, _, baseline = asking(Budget(latency_ms=Relative(fraction=0.5)))
    first = Figure(value=10.0, standing="measured")
    baseline = replace(baseline, figures={**baseline.figures, "latency_ms": first})
    proof = Proof(
        runnable=RUNNABLE, verified={}, interpreted={}, predicted={},
        split=None, left_open=(), measured={"latency_ms": Figure(value=8.0, standing="measured")},
        # The machine has become half as fast since the baseline was first measured.
        baseline_latency=Figure(value=20.0, standing="measured"),
    )  # fmt: skip
    assert feedback._steady_latency(request, proof, baseline)["latency_ms"].value == 4.0
    absolute = replace(request, budget=Budget(latency_ms=9.0))
    assert feedback._steady_latency(absolute, proof, baseline)["latency_ms"].value == 8.0
    assert feedback._steady_latency(request, replace(proof, measured={}), baseline) == {}
