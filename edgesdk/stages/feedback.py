"""Plan, probe, correct and plan again, until an artifact keeps the budget or none can.

What a network costs depends on its shape, not on its weights. So a plan that trains is first
emitted with its pruned, untrained weights: bytes, memory and latency of that probe are real, and
only a shape that keeps its limits is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgesdk.budget import Relative, Verdict
from edgesdk.cost.calibration import calibrate
from edgesdk.cost.latency import predict_latency
from edgesdk.device import DeviceProfile
from edgesdk.figure import Figures
from edgesdk.graph import OpGraph
from edgesdk.plan import Plan
from edgesdk.planner.explanation import broken_verdicts, explain_verdict
from edgesdk.planner.search import Decision, decide
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.scheme import Scheme
from edgesdk.stages.attempt import Attempt, carry_out
from edgesdk.stages.baseline import Baseline
from edgesdk.stages.compression import trains
from edgesdk.stages.planning import plan_for
from edgesdk.stages.proof import Proof
from edgesdk.stages.request import Request
from edgesdk.task import Split

_MAXIMUM_PROBES = 24
_MAXIMUM_RECOVERIES = 3


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What carrying out options has taught: their figures by option name, and per scheme the
    pairs of predicted and measured milliseconds that correct the device."""

    learned: Mapping[str, Figures] = field(default_factory=dict)
    pairs: Mapping[Scheme, tuple[tuple[float, float], ...]] = field(default_factory=dict)

    def corrected(self, request: Request) -> DeviceProfile:
        """Return the request's device, corrected by every measurement so far."""
        device = request.device
        for scheme, pairs in self.pairs.items():
            device = calibrate(device, request.runtime.target, scheme, pairs)
        return device

    def with_figures(self, option: str, figures: Figures) -> Knowledge:
        """Return the knowledge with an option's proven figures added."""
        known = {**self.learned.get(option, {}), **figures}
        return replace(self, learned={**self.learned, option: known})

    def with_latency(
        self, request: Request, graph: OpGraph, scheme: Scheme, measured_ms: float
    ) -> Knowledge:
        """Return the knowledge with one more pair of predicted and measured latency."""
        predicted_ms = predict_latency(graph, request.runtime, scheme).total.value
        pairs = (*self.pairs.get(scheme, ()), (predicted_ms, measured_ms))
        return replace(self, pairs={**self.pairs, scheme: pairs})


def find_attempt(request: Request, sensitivity: Sensitivity, baseline: Baseline) -> Attempt:
    """Return the best attempt that keeps the budget, else the nearest one with its reason.

    At most 24 shapes are probed and 3 are trained; after those only the original's own formats
    are left, which need no training.
    """
    knowledge = Knowledge()
    if baseline.measurement is not None:
        knowledge = knowledge.with_latency(
            request, baseline.graph, baseline.scheme, baseline.measurement.p50_ms
        )
    recoveries = 0
    fitting: set[str] = set()
    nearest: Attempt | None = None
    for _ in range(3 * _MAXIMUM_PROBES):
        left = sensitivity if recoveries < _MAXIMUM_RECOVERIES else _originals(sensitivity)
        decision, plan = _decide(request, left, baseline, knowledge)
        spent = len(knowledge.learned) >= _MAXIMUM_PROBES and plan.option not in fitting
        if decision.chosen is None or spent:
            break
        graph = sensitivity.candidates[decision.chosen.option.candidate].graph
        if plan.option not in fitting:
            attempt = probe(request, plan, baseline)
            if attempt.status == "ok" and trains(plan.steps):
                # The device is better known now: an option that loses less may fit after all.
                fitting.add(plan.option)
                knowledge = _learn(request, knowledge, attempt, baseline, graph)
                continue
        else:
            recoveries += 1
            attempt = carry_out(request, plan, baseline, split="validation", measure=False)
        if attempt.status == "ok":
            attempt = carry_out(request, plan, baseline, split="test", measure=True)
        attempt = replace(attempt, feasibility=decision.feasibility)
        if attempt.status == "ok" or _missed_on_test(attempt):
            return attempt
        request.progress.step(f"{plan.option} misses: {attempt.reason}")
        nearest = attempt
        knowledge = _learn(request, knowledge, attempt, baseline, graph)
    decision, plan = _decide(request, sensitivity, baseline, knowledge)
    return _refusal(decision, plan, baseline, nearest, recoveries)


def _originals(sensitivity: Sensitivity) -> Sensitivity:
    """Return what is known of the unpruned options alone."""
    return replace(sensitivity, candidates=sensitivity.candidates[:1])


def probe(request: Request, plan: Plan, baseline: Baseline) -> Attempt:
    """Return the attempt before training: real bytes, memory and latency of the plan's shape.

    Accuracy is scored only where no training is still to come.
    """
    split: Split | None = None if trains(plan.steps) else "validation"
    return carry_out(request, plan, baseline, split=split, measure=True, recovered=False)


def decide_only(request: Request, sensitivity: Sensitivity, baseline: Baseline) -> Attempt:
    """Return what would be done by prediction alone."""
    decision, plan = _decide(request, sensitivity, baseline, Knowledge())
    if decision.chosen is None:
        return _refusal(decision, plan, baseline, None, 0)
    return Attempt(
        status="ok",
        plan=plan,
        baseline=baseline.figures,
        verdicts=decision.chosen.verdicts,
        feasibility=decision.feasibility,
    )


def _decide(
    request: Request, sensitivity: Sensitivity, baseline: Baseline, knowledge: Knowledge
) -> tuple[Decision, Plan]:
    device = knowledge.corrected(request)
    runtime = device.runtime_for(request.runtime.target)
    decision = decide(
        sensitivity,
        device,
        runtime,
        request.budget,
        schemes=request.schemes,
        baseline=baseline.figures,
        recovers=request.recovers,
        provable=baseline.provable,
        learned=knowledge.learned,
    )
    taken = decision.chosen or decision.nearest
    return decision, plan_for(request, taken, decision, sensitivity, baseline)


def _learn(
    request: Request, knowledge: Knowledge, attempt: Attempt, baseline: Baseline, graph: OpGraph
) -> Knowledge:
    proof = attempt.proof
    assert proof is not None
    figures = {**proof.predicted, **proof.verified, **_steady_latency(request, proof, baseline)}
    knowledge = knowledge.with_figures(attempt.plan.option, figures)
    if "latency_ms" not in figures:
        return knowledge
    return knowledge.with_latency(request, graph, attempt.plan.scheme, figures["latency_ms"].value)


def _steady_latency(request: Request, proof: Proof, baseline: Baseline) -> Figures:
    """Return the measured latency, in the baseline's first time scale for a relative limit.

    The machine's speed drifts between rounds of the search, the ratio to the baseline timed in
    the same rounds does not.
    """
    latency = proof.measured.get("latency_ms")
    if latency is None:
        return {}
    if proof.baseline_latency is None or not isinstance(request.budget.latency_ms, Relative):
        return {"latency_ms": latency}
    scale = baseline.figures["latency_ms"].value / proof.baseline_latency.value
    return {"latency_ms": replace(latency, value=latency.value * scale)}


def _missed_on_test(attempt: Attempt) -> bool:
    """Whether the final look at test data refuted it: choosing again would fit to test data."""
    assert attempt.proof is not None
    return attempt.proof.split == "test" and any(
        verdict.condition.figure == "accuracy_drop" for verdict in broken_verdicts(attempt.verdicts)
    )


def _refusal(
    decision: Decision, plan: Plan, baseline: Baseline, nearest: Attempt | None, recoveries: int
) -> Attempt:
    """Return the infeasible attempt: the one carried out last, else the nearest by prediction."""
    tried = f" after training {recoveries} of them" if recoveries else ""
    if nearest is not None:
        reason = f"no option keeps the budget{tried}; {nearest.plan.option}: {nearest.reason}"
        return replace(nearest, reason=reason, feasibility=decision.feasibility)
    verdicts = decision.nearest.verdicts
    return Attempt(
        status="infeasible",
        plan=plan,
        baseline=baseline.figures,
        verdicts=verdicts,
        feasibility=decision.feasibility,
        reason=f"no option can keep the budget; nearest is {plan.option}: {_why(verdicts)}",
    )


def _why(verdicts: Sequence[Verdict]) -> str:
    return "; ".join(explain_verdict(verdict) for verdict in broken_verdicts(verdicts))
