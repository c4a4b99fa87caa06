"""Turn a decision into a plan that explains itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgesdk.budget import Verdict, format_figure
from edgesdk.cache import key_of
from edgesdk.device import DeviceProfile, Runtime
from edgesdk.document import to_builtins
from edgesdk.figure import TITLES, Figures
from edgesdk.plan import Distil, Factorize, Finetune, Plan, Prune, Quantize, Rejected, Step
from edgesdk.planner.block_reasons import block_reasons
from edgesdk.planner.departures import WORTH_WIDENING
from edgesdk.planner.front import pareto_front
from edgesdk.planner.options import pruned_share
from edgesdk.planner.search import Assessment, Decision
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.split_reasons import split_reasons
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How accuracy is won back after pruning: a step of the plan (None: not at all), and why."""

    step: Distil | Finetune | None
    reason: str


_MAXIMUM_REJECTED = 12
_NAMED_GROUPS = 4


def write_plan(
    assessment: Assessment, decision: Decision, sensitivity: Sensitivity, *, task: str,
    task_key: str, device: DeviceProfile, runtime: Runtime, recovery: Recovery,
    refused: Mapping[Scheme, str], baseline: Figures, seed: int,
) -> Plan:  # fmt: skip
    """Return the plan that carries out ``assessment`` (the chosen one, or the nearest)."""
    steps = _steps(assessment, sensitivity, recovery.step)
    return Plan(
        task=task,
        task_key=task_key,
        device=device.name,
        target=runtime.target,
        option=assessment.option.name,
        scheme=assessment.option.scheme,
        steps=steps,
        steps_sha256=key_of(to_builtins(steps)),
        predicted=assessment.predicted,
        baseline=baseline,
        reasons=_reasons(
            assessment,
            decision,
            sensitivity,
            device=device,
            runtime=runtime,
            recovery=recovery,
            refused=refused,
        ),
        rejected=_rejected(assessment, decision),
        front=pareto_front(decision, taken=assessment),
        prices=(),
        gap=assessment.gap,
        seed=seed,
        elsewhere=assessment.elsewhere,
        delegate=runtime.delegate,
    )


def _steps(
    assessment: Assessment, sensitivity: Sensitivity, recovery: Distil | Finetune | None
) -> tuple[Step, ...]:
    steps: list[Step] = []
    widths = assessment.option.widths
    groups, blocks = sensitivity.pruned_groups(widths), assessment.option.removed_blocks
    if groups or blocks:
        steps.append(
            Prune(
                ratio=round(pruned_share(widths, sensitivity.widths.full), 4),
                channel_multiple=sensitivity.channel_multiple,
                importance=sensitivity.importance,
                groups=groups,
                moves_batch_norms=sensitivity.moves_batch_norms,
                removed_blocks=blocks,
            )
        )
    option = assessment.option
    if option.splits:
        steps.append(Factorize(ranks=dict(option.splits)))
    if steps and recovery is not None:
        steps.append(recovery)
    if option.scheme != "fp32":
        steps.append(Quantize(scheme=option.scheme, layer_schemes=option.layer_schemes))
    return tuple(steps)


def _wider_reasons(assessment: Assessment, decision: Decision) -> list[str]:
    """Return why int16 activations were left, where they fit and lose a little less."""
    wider = [
        other.expected_loss
        for other in decision.assessments
        if other.option.scheme == "w8a16"
        and other.option.scheme != assessment.option.scheme
        and other.plausible
        and other.expected_loss < assessment.expected_loss
    ]
    if not wider or decision.objective != "least expected loss" or decision.chosen is None:
        return []
    return [
        f"w8a16 is expected to lose {min(wider):.4g}, too little less: int16 activations have to "
        f"win {WORTH_WIDENING:g}."
    ]


def _reasons(
    assessment: Assessment, decision: Decision, sensitivity: Sensitivity, *,
    device: DeviceProfile, runtime: Runtime, recovery: Recovery, refused: Mapping[Scheme, str],
) -> tuple[str, ...]:  # fmt: skip
    where = f"{device.title} ({runtime.runtime} on {runtime.unit})"
    if assessment.elsewhere:
        where += f" and {', '.join(assessment.elsewhere)}"
    name, chosen = assessment.option.name, decision.chosen
    if chosen is None:
        text = f"No option fits {where}; {name} comes nearest."
    elif assessment is chosen:
        text = f"{name} has the {decision.objective} among the options that fit {where}."
    else:
        text = (
            f"{name} was probed and fits {where}; {chosen.option.name} promises too little less "
            f"loss ({chosen.expected_loss:.4g} for {assessment.expected_loss:.4g}) to be probed."
        )
    reasons = [text, *(f"{explain_verdict(v)}." for v in assessment.verdicts)]
    reasons += _wider_reasons(assessment, decision)
    if decision.objective == "least latency":
        limit = _drop_limit(decision)
        within = "" if limit is None else f" within a drop of {100 * limit:g} %"
        reasons.append(
            f"No limit on speed or space was given, so the fastest plan{within} is sought."
        )
    option = assessment.option
    if not option.is_whole(sensitivity.widths.full):
        if option.widths != sensitivity.widths.full:
            reasons.append(_width_reason(assessment, sensitivity))
        reasons.extend(block_reasons(option, sensitivity, runtime))
        reasons.extend(split_reasons(option, sensitivity, runtime))
        reasons.extend(_gap_reason(assessment))
        reasons.append(recovery.reason)
    if option.departures:
        reasons.append(_departure_reason(assessment, sensitivity))
    unit = (
        "KL divergence in nats"
        if sensitivity.formats[0].disagreement is not None
        else "relative squared error"
    )
    reasons.append(
        f"Expected loss before recovery is {assessment.expected_loss:.4g} ({unit} from the "
        f"original's outputs on {sensitivity.samples} {sensitivity.inputs} inputs)"
        + _ranking(sensitivity)
    )
    reasons.extend(f"{scheme} is not offered: {why}." for scheme, why in refused.items())
    reasons.extend(f"Note: {note}." for note in sensitivity.notes)
    return tuple(reasons)


def _ranking(sensitivity: Sensitivity) -> str:
    """Return how channels are chosen, nothing where there are none to choose."""
    if not sensitivity.curves:
        return "."
    return (
        f"; channels are ranked by {sensitivity.importance}, widths are multiples of "
        f"{sensitivity.channel_multiple}, or halves of it."
    )


def _drop_limit(decision: Decision) -> float | None:
    limits = [c.limit for c in decision.conditions if c.figure == "accuracy_drop"]
    return limits[0] if limits else None


def _narrowing(kept: int, whole: int, heads: int) -> str:
    """Return a group's width before and after, in heads where those are what goes."""
    return f"{heads} to {heads * kept // whole} heads" if heads else f"{whole} to {kept}"


def _width_reason(assessment: Assessment, sensitivity: Sensitivity) -> str:
    """Say which groups give way most and which stay whole, of those that are not gone."""
    option, model = assessment.option, sensitivity.widths
    gone = model.groups_within(option.removed_blocks)
    groups = enumerate(zip(model.groups, option.widths, model.full, strict=True))
    rows = sorted(
        (kept / whole, layer, kept, whole)
        for group, (layer, kept, whole) in groups
        if group not in gone
    )
    heads = {curve.layer: curve.heads for curve in sensitivity.curves}
    cut = [
        f"{layer} {_narrowing(kept, whole, heads.get(layer, 0))}"
        for share, layer, kept, whole in rows
        if share < 1
    ]
    whole = sum(1 for share, *_ in rows if share == 1)
    text = f"Narrower where it costs least for what it saves: {', '.join(cut[:_NAMED_GROUPS])}"
    text += f" and {len(cut) - _NAMED_GROUPS} more groups" if len(cut) > _NAMED_GROUPS else ""
    return f"{text}; {whole} of {len(rows)} groups stay whole."


def _gap_reason(assessment: Assessment) -> list[str]:
    """Say how sure the choice is the best."""
    if assessment.gap == 0:
        return []
    option = assessment.option
    other = ["blocks"] * bool(option.removed_blocks) + ["splits"] * bool(option.splits)
    what = " and ".join([", ".join(["widths", *other[:-1]]), *other[-1:]])
    return [f"No choice of {what} has less than {1 - assessment.gap:.1%} of its loss."]


def _departure_reason(assessment: Assessment, sensitivity: Sensitivity) -> str:
    """Say which layers have another scheme than the network, and what that changes."""
    option = assessment.option
    changes = sorted(
        (sensitivity.departure_loss(option.scheme, departure), departure)
        for departure in option.departures
    )
    named = [f"{d.layer} in {d.scheme} ({change:+.2g})" for change, d in changes[:_NAMED_GROUPS]]
    more = len(changes) - _NAMED_GROUPS
    text = f"Layers that leave {option.scheme}, by the expected loss that this changes: "
    return text + ", ".join(named) + (f" and {more} more." if more > 0 else ".")


def _rejected(taken: Assessment, decision: Decision) -> tuple[Rejected, ...]:
    """Return the options ranked best that were not taken, each with the reason."""
    others = [item for item in decision.assessments if item is not taken][:_MAXIMUM_REJECTED]
    return tuple(
        Rejected(
            option=item.option.name,
            predicted=item.predicted,
            reason=_rejection(item, decision),
        )
        for item in others
    )


def _rejection(item: Assessment, decision: Decision) -> str:
    broken = broken_verdicts(item.verdicts)
    if item.plausible or not broken:
        return f"fits, but {decision.objective} is elsewhere"
    return "; ".join(explain_verdict(verdict) for verdict in broken)


def broken_verdicts(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts that are not met."""
    return [verdict for verdict in verdicts if not verdict.met]


def explain_verdict(verdict: Verdict) -> str:
    """Return one line about a verdict: the figure, its interval, the limit and the standing."""
    name = verdict.condition.figure
    if verdict.figure is None:
        return verdict.reason
    figure = verdict.figure
    text = f"{TITLES[name]} {format_figure(name, figure.value)}"
    text += f" on {verdict.condition.device}" if verdict.condition.device else ""
    if figure.standing == "predicted" and figure.low is not None and figure.high is not None:
        low, high = format_figure(name, figure.low), format_figure(name, figure.high)
        text += f" (between {low} and {high})"
    whose = " of the device" if verdict.condition.asked_by == "device" else ""
    limit = format_figure(name, verdict.condition.limit)
    return f"{text} {figure.standing}, limit{whose} {limit}"
