"""Repair what rounding broke: one rung more, and only while the measured accuracy asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from edgesdk.budget import Verdict
from edgesdk.cache import key_of
from edgesdk.compress.evaluation import model_predict
from edgesdk.document import to_builtins
from edgesdk.parity import NoiseError
from edgesdk.plan import Plan, Quantize, Step
from edgesdk.planner.explanation import broken_verdicts, explain_verdict
from edgesdk.stages.attempt import Attempt, carry_out
from edgesdk.stages.baseline import Baseline
from edgesdk.stages.compression import compress, model_key
from edgesdk.stages.recovery import Recoverer
from edgesdk.stages.request import Request
from edgesdk.stages.rungs import climb, why_no_more
from edgesdk.stages.scoring import score_original, score_predict

_CPU = torch.device("cpu")


def carry_out_repaired(
    request: Request, recoverer: Recoverer, plan: Plan, baseline: Baseline, *,
    first: Callable[[], Attempt], trainings: int, breaks: bool,
) -> tuple[Attempt | None, int]:  # fmt: skip
    """Return the first attempt at a plan, its rounding repaired, and how many trainings that took.

    Nothing is repaired unless the attempt was scored on validation data, breaks its limit on the
    accuracy drop and no other, is int8, and would keep that limit in float: then rounding is to
    blame. Rungs are climbed until one keeps the limit; each starts from the network as pruned and
    recovered, and quantization-aware training from its post-training quantization. Where none
    does, the attempt is the one with the smallest drop. The plan says what was done and why.

    ``breaks`` says that simulated rounding breaks the accuracy too. Then a file that does not
    follow its float module is rounding's fault as well, and no ``NoiseError``; the attempt is
    None where that is so of every rung.
    """
    if plan.scheme != "int8" or request.quantizer is None:
        return first(), 0
    found = _tried(first, breaks=breaks)
    why = _why_broken(found)
    if why is None or not _keeps_in_float(request, plan, found):
        return found if isinstance(found, Attempt) else None, 0
    attempts, trained = [found], 0
    reasons = [f"As it is: {why}"]
    for rung in climb(request, recoverer):
        if rung.trains and trained >= trainings:
            break
        reasons[-1] += f", so {rung.does}."
        request.progress.step(f"{plan.option}: {rung.does}")
        tried = _with_steps(plan, rung.steps, reasons)
        with recoverer.spending():
            found = _tried(lambda p=tried: _scored(request, p, baseline), breaks=breaks)  # type: ignore[misc]
        trained += rung.trains
        attempts.append(found)
        why = _why_broken(found)
        if why is None:
            break
        reasons.append(f"After that: {why}")
    ends = why is not None or request.task.training is None
    return _best(attempts, why_no_more(request, recoverer) if ends else ""), trained


def _tried(attempt: Callable[[], Attempt], *, breaks: bool) -> Attempt | NoiseError:
    """Return the attempt, or how far it is from its float module where rounding explains that."""
    try:
        return attempt()
    except NoiseError as problem:
        if not breaks:
            raise
        return problem


def _scored(request: Request, plan: Plan, baseline: Baseline) -> Attempt:
    return carry_out(request, plan, baseline, split="validation", measure=False)


def _why_broken(found: Attempt | NoiseError) -> str | None:
    """Return what is wrong where rounding may be to blame: too large a drop and nothing else."""
    if isinstance(found, NoiseError):
        return found.found
    drop = _broken_drop(found)
    return None if drop is None else explain_verdict(drop)


def _best(attempts: Sequence[Attempt | NoiseError], why: str) -> Attempt | None:
    """Return the attempt that keeps the limit, else the one with the smallest drop, if any."""
    scored = [attempt for attempt in attempts if isinstance(attempt, Attempt)]
    best = min(reversed(scored), key=_rank, default=None)
    if best is None or not why:
        return best
    return replace(best, plan=replace(best.plan, reasons=(*best.plan.reasons, why)))


def _broken_drop(attempt: Attempt) -> Verdict | None:
    """Return the verdict on the accuracy drop of an int8 attempt that breaks nothing else."""
    broken = broken_verdicts(attempt.verdicts)
    if attempt.plan.scheme != "int8" or attempt.proof is None or len(broken) != 1:
        return None
    on_drop = broken[0].condition.figure == "accuracy_drop" and broken[0].figure is not None
    return broken[0] if on_drop and attempt.proof.split == "validation" else None


def _keeps_in_float(request: Request, plan: Plan, found: Attempt | NoiseError) -> bool:
    """Return whether the float network that was quantized keeps the limit."""
    if isinstance(found, NoiseError):
        return True
    drop = _broken_drop(found)
    assert drop is not None
    module = compress(request, plan).module
    key = f"float of {model_key(request, plan, recovered=True)}"
    score = score_predict(request, model_predict(module, _CPU), "validation", key)
    lost = request.task.metric.drop(score_original(request, "validation").value, score.value)
    return lost <= drop.condition.limit


def _with_steps(plan: Plan, steps: Sequence[Step], reasons: Sequence[str]) -> Plan:
    """Return the plan with steps in front of quantizing, and the reasons for them."""
    kept = [step for step in plan.steps if not isinstance(step, Quantize)]
    quantizing = [step for step in plan.steps if isinstance(step, Quantize)]
    whole = (*kept, *steps, *quantizing)
    return replace(
        plan,
        steps=whole,
        steps_sha256=key_of(to_builtins(whole)),
        reasons=(*plan.reasons, *reasons),
    )


def _rank(attempt: Attempt) -> tuple[bool, float]:
    """Return what sorts attempts: whether the limit is broken, and the drop."""
    verdicts = [v for v in attempt.verdicts if v.condition.figure == "accuracy_drop"]
    drops = [v.figure.value for v in verdicts if v.figure is not None]
    return attempt.status != "ok", min(drops, default=float("inf"))
