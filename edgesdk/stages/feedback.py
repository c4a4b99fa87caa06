"""Plan, probe, correct and plan again, until an artifact keeps the budget or none can.

What a network costs depends on its shape, not on its weights. So a plan that trains is first
emitted with its pruned, untrained weights: bytes, memory and latency of that probe are real, and
only a shape that keeps its limits is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from edgesdk.budget import Condition, Relative, Verdict
from edgesdk.cost.calibration import calibrate
from edgesdk.cost.latency import predict_latency
from edgesdk.device import DeviceProfile, Runtime
from edgesdk.figure import Figure, Figures
from edgesdk.graph import OpGraph
from edgesdk.layer_format import LayerSchemes
from edgesdk.measurement import latency_figure
from edgesdk.parity import NoiseError
from edgesdk.plan import Plan
from edgesdk.planner.explanation import broken_verdicts, explain_verdict
from edgesdk.planner.options import Option
from edgesdk.planner.prices import explain_price, shadow_prices
from edgesdk.planner.proposals import Proposer
from edgesdk.planner.search import Assessment, Decision, Objective, decide, resolve_budget
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.scheme import Scheme
from edgesdk.stages.attempt import Attempt, carry_out
from edgesdk.stages.baseline import Baseline
from edgesdk.stages.compression import trains
from edgesdk.stages.planning import plan_for
from edgesdk.stages.proof import Proof
from edgesdk.stages.recovery import Recoverer
from edgesdk.stages.repair import carry_out_repaired
from edgesdk.stages.request import Request
from edgesdk.task import Split

_MAXIMUM_PROBES = 24

# Where no prediction keeps the limits but some interval reaches below them, so many are tried.
_MAXIMUM_HOPES = 3

# Once a shape keeps the limits, another is probed only if it promises to lose this much less.
_WORTH_A_PROBE = 0.95


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What carrying out options has taught: their figures, and per scheme the pairs of predicted
    and measured milliseconds that correct the device. ``estimate_factor``: how far the latter may
    be off where a compiler estimated them."""

    learned: Mapping[Option, Figures] = field(default_factory=dict)
    pairs: Mapping[Scheme, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    estimate_factor: float = 1.0

    def corrected(self, request: Request) -> DeviceProfile:
        """Return the request's device, corrected by every measurement so far."""
        device = request.device
        for scheme, pairs in self.pairs.items():
            device = calibrate(
                device,
                request.runtime.target,
                scheme,
                pairs,
                delegate=request.runtime.delegate,
                estimate_factor=self.estimate_factor,
            )
        return device

    def with_figures(self, option: Option, figures: Figures) -> Knowledge:
        """Return the knowledge with an option's proven figures added."""
        known = {**self.learned.get(option, {}), **figures}
        return replace(self, learned={**self.learned, option: known})

    def with_latency(
        self, request: Request, graph: OpGraph, scheme: Scheme, latency: Figure,
        layer_schemes: LayerSchemes = MappingProxyType({}),
    ) -> Knowledge:  # fmt: skip
        """Return the knowledge with another pair of predicted and measured (estimated) latency."""
        prediction = predict_latency(graph, request.runtime, scheme, layer_schemes)
        predicted_ms = prediction.total.value
        pairs = (*self.pairs.get(scheme, ()), (predicted_ms, latency.value))
        factor = latency.upper / latency.value
        return replace(
            self,
            pairs={**self.pairs, scheme: pairs},
            estimate_factor=max(self.estimate_factor, factor),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """What stays the same while an attempt is sought: the request, its proposer, its baseline."""

    request: Request
    sensitivity: Sensitivity
    baseline: Baseline
    proposer: Proposer
    recoverer: Recoverer

    @classmethod
    def of(cls, request: Request, sensitivity: Sensitivity, baseline: Baseline) -> Search:
        """Return the search of a request, with nothing learned yet."""
        proposer = Proposer(
            sensitivity=sensitivity, runtimes=request.runtimes, schemes=request.schemes
        )
        return cls(
            request=request,
            sensitivity=sensitivity,
            baseline=baseline,
            proposer=proposer,
            recoverer=Recoverer(request),
        )

    def decide(self, knowledge: Knowledge, *, pruned: bool = True) -> tuple[Decision, Assessment]:
        """Return the decision and the option taken, or the nearest one.

        ``pruned`` is false once no more training is left: then only the original's own formats are
        options.
        """
        full = self.sensitivity.widths.full
        runtimes, conditions, objective = self._terms(knowledge)
        proposals = self.proposer.propose(
            runtimes, conditions, self.baseline.provable, knowledge.learned
        )
        decision = decide(
            [item for item in proposals if pruned or item.option.is_whole(full)],
            self.sensitivity,
            conditions,
            objective,
            recovers=self.recoverer.recovery().step is not None,
            repairs=self.request.quantizer is not None,
            provable=self.baseline.provable,
            learned=knowledge.learned,
        )
        return decision, decision.chosen or decision.nearest

    def plan(self, taken: Assessment, decision: Decision) -> Plan:
        """Return the plan that carries out an option."""
        return plan_for(
            self.request,
            taken,
            decision,
            self.sensitivity,
            self.baseline,
            recovery=self.recoverer.recovery(),
        )

    def score(
        self, plan: Plan, decision: Decision, *, trainings: int
    ) -> tuple[Attempt | None, int]:
        """Return the plan carried out and scored on validation data, repaired where rounding broke
        it, and the trainings that took; None where nothing repairs it."""

        def first() -> Attempt:
            if not trains(plan.steps):
                return probe(self.request, plan, self.baseline)
            with self.recoverer.spending():
                return carry_out(
                    self.request, plan, self.baseline, split="validation", measure=False
                )

        return carry_out_repaired(
            self.request,
            self.recoverer,
            plan,
            self.baseline,
            first=first,
            trainings=trainings,
            breaks=self._rounding_breaks(plan, decision),
        )

    def probe(self, plan: Plan, decision: Decision) -> Attempt | None:
        """Return the shape of a plan that trains, probed; None where rounding alone ruins it."""
        try:
            return probe(self.request, plan, self.baseline)
        except NoiseError:
            if not self._rounding_breaks(plan, decision):
                raise
            return None

    def _rounding_breaks(self, plan: Plan, decision: Decision) -> bool:
        """Return whether simulated rounding alone breaks the limit on the drop."""
        limits = [c.limit for c in decision.conditions if c.figure == "accuracy_drop"]
        simulated = self.sensitivity.format(plan.scheme).drop
        return simulated is not None and any(simulated > limit for limit in limits)

    def simulated_drop(self, scheme: Scheme) -> Figures:
        """Return what simulated rounding costs, for a file too far off to be scored."""
        drop = self.sensitivity.format(scheme).drop
        assert drop is not None
        figure = Figure(value=drop, standing="predicted", low=drop, high=drop, source="simulated")
        return {"accuracy_drop": figure}

    def priced(self, plan: Plan, knowledge: Knowledge) -> Plan:
        """Return the plan with what moving each limit would buy."""
        runtimes, conditions, _ = self._terms(knowledge)

        def best_loss(moved: Sequence[Condition]) -> float | None:
            provable, tried = self.baseline.provable, knowledge.learned
            return self.proposer.best_loss(runtimes, moved, provable, tried)

        self.request.progress.step("Pricing the limits")
        prices = shadow_prices(conditions, best_loss)
        reasons = (*plan.reasons, *(explain_price(price) for price in prices))
        return replace(plan, prices=prices, reasons=reasons)

    def _terms(
        self, knowledge: Knowledge
    ) -> tuple[Mapping[str, Runtime], tuple[Condition, ...], Objective]:
        """Return the runtimes, the first one corrected, the absolute conditions and what is
        minimised."""
        request = self.request
        can_score = self.sensitivity.metric is not None
        budget, objective = resolve_budget(request.budget, can_score=can_score)
        conditions = request.conditions(budget, self.baseline.figures, self.baseline.elsewhere)
        corrected = knowledge.corrected(request).runtime_for(
            request.runtime.target, request.runtime.delegate
        )
        return {**request.runtimes, "": corrected}, conditions, objective


def find_attempt(request: Request, sensitivity: Sensitivity, baseline: Baseline) -> Attempt:
    """Return the best attempt that keeps the budget, else the nearest one with its reason.

    At most 24 shapes are probed, and as many trained as the effort allows; after those only the
    original's own formats are left, which need no training. Where no prediction keeps the limits,
    the nearest shapes whose intervals reach below them are probed before anything is refused.
    """
    search = Search.of(request, sensitivity, baseline)
    knowledge = Knowledge()
    if baseline.proof is not None and baseline.proof.measurement is not None:
        knowledge = knowledge.with_latency(
            request, baseline.graph, baseline.scheme, latency_figure(baseline.proof.measurement)
        )
    recoveries, most, hopes = 0, request.effort.spending.trainings, 0
    fitting: dict[Option, Assessment] = {}
    nearest: Attempt | None = None
    for _ in range(3 * _MAXIMUM_PROBES):
        untrained = search.recoverer.recovery().step is None
        decision, taken = search.decide(knowledge, pruned=untrained or recoveries < most)
        if decision.chosen is None:
            hope = _nearest_possible(decision, knowledge)
            if hope is None or hopes == _MAXIMUM_HOPES:
                break
            taken, hopes = hope, hopes + 1
        taken = _worth_probing(decision, taken, fitting)
        if taken.option not in fitting and len(knowledge.learned) >= _MAXIMUM_PROBES:
            break
        plan = search.plan(taken, decision)
        if trains(plan.steps) and taken.option not in fitting:
            attempt = search.probe(plan, decision)
            if attempt is not None and attempt.status == "ok":
                # The device is better known now: an option that loses less may fit after all.
                fitting[taken.option] = taken
                knowledge = _learn(search, knowledge, taken.option, attempt)
                continue
        else:
            recoveries += trains(plan.steps)
            attempt, repairs = search.score(plan, decision, trainings=most - recoveries)
            recoveries += repairs
        if attempt is None:
            knowledge = knowledge.with_figures(taken.option, search.simulated_drop(plan.scheme))
            continue
        if attempt.status == "ok":
            attempt = carry_out(request, attempt.plan, baseline, split="test", measure=True)
        attempt = replace(attempt, feasibility=decision.feasibility)
        if attempt.status == "ok" or _missed_on_test(attempt):
            return replace(attempt, plan=search.priced(attempt.plan, knowledge))
        request.progress.step(f"{plan.option} misses: {attempt.reason}")
        nearest = attempt
        fitting.pop(taken.option, None)
        knowledge = _learn(search, knowledge, taken.option, attempt)
    decision, taken = search.decide(knowledge)
    plan = search.priced(search.plan(taken, decision), knowledge)
    return _refusal(decision, plan, baseline, nearest, recoveries)


def _nearest_possible(decision: Decision, knowledge: Knowledge) -> Assessment | None:
    """Return the option nearest to the limits that a proof may still show to keep them."""
    untried = [a for a in decision.assessments if a.possible and a.option not in knowledge.learned]
    return min(untried, key=lambda a: a.worst_excess, default=None)


def _worth_probing(
    decision: Decision, taken: Assessment, fitting: Mapping[Option, Assessment]
) -> Assessment:
    """Return a shape known to fit instead, unless the one taken promises clearly less loss."""
    known = [item for item in decision.assessments if item.option in fitting and item.plausible]
    if not known or taken.option in fitting or decision.objective == "least latency":
        return taken
    if taken.expected_loss < _WORTH_A_PROBE * known[0].expected_loss:
        return taken
    return known[0]


def probe(request: Request, plan: Plan, baseline: Baseline) -> Attempt:
    """Return the attempt before training: real bytes, memory and latency of the plan's shape.

    Where no training is still to come the plan is carried out as it is, and accuracy scored.
    """
    to_come = trains(plan.steps)
    split: Split | None = None if to_come else "validation"
    return carry_out(request, plan, baseline, split=split, measure=True, recovered=not to_come)


def decide_only(request: Request, sensitivity: Sensitivity, baseline: Baseline) -> Attempt:
    """Return what would be done by prediction alone."""
    search, knowledge = Search.of(request, sensitivity, baseline), Knowledge()
    decision, taken = search.decide(knowledge)
    plan = search.priced(search.plan(taken, decision), knowledge)
    if decision.chosen is None:
        return _refusal(decision, plan, baseline, None, 0)
    return Attempt(
        status="ok",
        plan=plan,
        baseline=baseline.figures,
        verdicts=decision.chosen.verdicts,
        feasibility=decision.feasibility,
    )


def _learn(search: Search, knowledge: Knowledge, option: Option, attempt: Attempt) -> Knowledge:
    proof = attempt.proof
    assert proof is not None
    proven = {**proof.predicted, **proof.interpreted, **proof.verified}
    figures = {**proven, **_steady_latency(search.request, proof, search.baseline)}
    knowledge = knowledge.with_figures(option, figures)
    if "latency_ms" not in figures:
        return knowledge
    graph = option.graph(search.sensitivity.widths)
    return knowledge.with_latency(
        search.request, graph, option.scheme, figures["latency_ms"], option.layer_schemes
    )


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
