"""An attempt: a plan carried out on the real toolchain and judged by what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgesdk.budget import Verdict, judge
from edgesdk.figure import Figure, FigureName, Figures
from edgesdk.plan import Plan
from edgesdk.planner.explanation import broken_verdicts, explain_verdict
from edgesdk.planner.search import Feasibility, resolve_budget, sections_on
from edgesdk.stages.baseline import Baseline
from edgesdk.stages.compression import compress, model_key
from edgesdk.stages.emission import emit
from edgesdk.stages.planning import is_edited, replanned
from edgesdk.stages.proof import Proof, prove
from edgesdk.stages.request import Request
from edgesdk.task import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt:
    """A plan, carried out (or only decided) and judged; ``reason`` says what it does not keep."""

    status: Literal["ok", "infeasible"]
    plan: Plan
    baseline: Figures
    verdicts: tuple[Verdict, ...]
    feasibility: tuple[Feasibility, ...] = ()
    reason: str = ""
    proof: Proof | None = None

    @property
    def predicted(self) -> Figures:
        """The plan's predictions, and a simulated accuracy where the file cannot run here."""
        return {**self.plan.predicted, **(self.proof.predicted if self.proof else {})}


def carry_out(
    request: Request, plan: Plan, baseline: Baseline, *, split: Split | None, measure: bool,
    recovered: bool = True, replayed: bool = False,
) -> Attempt:  # fmt: skip
    """Return a plan compressed, emitted and proven, with every condition judged.

    A ``replayed`` plan is judged by the budget as given: without one it has no condition but the
    device's own, since somebody has decided already. Conditions that this proof leaves open on
    purpose (accuracy without a ``split``, latency with ``measure`` false) have no verdict.
    """
    model = compress(request, plan, recovered=recovered)
    if replayed and is_edited(plan):
        plan = replanned(request, plan, model)
    emitted = emit(request, model, model_key(request, plan, recovered=recovered))
    float_original = baseline.proof.runnable if baseline.proof else None
    proof = prove(request, emitted, baseline=float_original, split=split, measure=measure)
    verdicts = judge_proof(request, plan, baseline, proof, replayed=replayed)
    broken = broken_verdicts(verdicts)
    return Attempt(
        status="infeasible" if broken else "ok",
        plan=plan,
        baseline=_timed_beside(baseline, proof),
        verdicts=verdicts,
        reason="; ".join(explain_verdict(verdict) for verdict in broken),
        proof=proof,
    )


def judge_proof(
    request: Request, plan: Plan, baseline: Baseline, proof: Proof, *, replayed: bool = False
) -> tuple[Verdict, ...]:
    """Return the verdict on every condition that the proof does not leave open."""
    can_score = request.task.evaluate is not None
    given = replayed and request.budget.is_empty
    budget = request.budget if given else resolve_budget(request.budget, can_score=can_score)[0]
    conditions = request.conditions(budget, _timed_beside(baseline, proof), baseline.elsewhere)
    predicted = {**plan.predicted, **proof.predicted}
    sections = [proof.measured, proof.verified, proof.interpreted, predicted]
    return tuple(
        judge(c, sections_on(c.device, sections, plan.elsewhere))
        for c in conditions
        if c.device or c.figure not in proof.left_open
    )


def _timed_beside(baseline: Baseline, proof: Proof) -> dict[FigureName, Figure]:
    """Return the baseline's figures, its latency as timed in the same rounds as the artifact."""
    if proof.baseline_latency is None:
        return dict(baseline.figures)
    return {**baseline.figures, "latency_ms": proof.baseline_latency}
