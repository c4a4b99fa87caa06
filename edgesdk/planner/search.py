"""Choose the option with the least expected loss among those that meet the budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from edgesdk.budget import DEFAULT_MAX_DROP, Budget, Condition, Verdict, judge
from edgesdk.errors import UsageError
from edgesdk.figure import Figure, FigureName, Figures, best_figure
from edgesdk.planner.departures import rank_of
from edgesdk.planner.limits import is_provable
from edgesdk.planner.options import Option, option_for
from edgesdk.planner.prediction import predict_drop
from edgesdk.planner.proposals import Proposed
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.widths import Widths
from edgesdk.scheme import FLOAT_SCHEMES

Objective = Literal["least expected loss", "least latency"]


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """An option with its figures and verdicts; ``plausible`` when nothing rules it out, and
    ``possible`` when a proof that is still to come may be better than every prediction's centre.

    ``expected_loss`` is before recovery; options are ranked by it and a little for each layer that
    departs from the network's scheme or is split (``rank``). ``gap`` is how far from
    the least one the program may have stopped, as a share of it. ``elsewhere`` are the figures on
    the other devices of a fleet, by their names.
    """

    option: Option
    expected_loss: float
    predicted: Mapping[FigureName, Figure]
    verdicts: tuple[Verdict, ...]
    plausible: bool
    possible: bool
    gap: float = 0.0
    elsewhere: Mapping[str, Figures] = field(default_factory=dict)

    @property
    def slowest_ms(self) -> float:
        """The predicted latency on the device of the fleet where it is longest."""
        return max(f["latency_ms"].value for f in (self.predicted, *self.elsewhere.values()))

    @property
    def rank(self) -> float:
        """The expected loss, and a little for what the option takes (``Sensitivity.rank``)."""
        option = self.option
        return rank_of(self.expected_loss, option.scheme, option.departures, option.splits)

    @property
    def worst_excess(self) -> float:
        """The largest ratio of a figure to its limit; infinite where a figure is missing."""
        return max((_excess(verdict) for verdict in self.verdicts), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Feasibility:
    """One condition over all options: the smallest figure reachable, the original's, the limit.

    ``device`` as in ``Condition``.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    figure: FigureName
    limit: float
    smallest: float | None
    smallest_option: str | None
    original: float | None
    reachable: bool
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The chosen option (None: nothing fits), all assessments, best first, and the feasibility."""

    chosen: Assessment | None
    nearest: Assessment
    assessments: tuple[Assessment, ...]
    conditions: tuple[Condition, ...]
    feasibility: tuple[Feasibility, ...]
    objective: Objective


def decide(
    proposals: Sequence[Proposed],
    sensitivity: Sensitivity,
    conditions: tuple[Condition, ...],
    objective: Objective,
    *,
    recovers: bool,
    repairs: bool = False,
    provable: Collection[FigureName] = (),
    learned: Mapping[Option, Figures] | None = None,
) -> Decision:
    """Return the option to take, by predictions and by what was ``learned`` of options tried.

    ``provable`` names the figures that compiling will measure, verify or estimate here: for those
    the prediction's centre decides now (for accuracy its lower end, since recovery is still to
    come) and the proof later. For all others, and where the proof is already ``learned``, the
    interval's upper end must keep the limit. With ``repairs`` int8's lower end is that of float,
    since rounding may be repaired.
    """
    tried = learned or {}
    judging = _Judging(
        sensitivity=sensitivity,
        conditions=conditions,
        provable=frozenset(provable),
        recovers=recovers,
        repairs=repairs,
    )
    judged = [judging.judged(item, tried.get(item.option, {})) for item in proposals]
    judged.sort(key=lambda pair: _rank(pair[0], objective))
    ranked = tuple(assessment for assessment, _ in judged)
    full = sensitivity.widths.full
    return Decision(
        chosen=next((a for a in ranked if a.plausible), None),
        nearest=min(ranked, key=lambda a: a.worst_excess),
        assessments=ranked,
        conditions=conditions,
        feasibility=tuple(_feasibility(c, judged, full) for c in conditions),
        objective=objective,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judging:
    """What options are judged by; see ``decide``."""

    sensitivity: Sensitivity
    conditions: tuple[Condition, ...]
    provable: frozenset[FigureName]
    recovers: bool
    repairs: bool

    def judged(self, proposed: Proposed, known: Figures) -> tuple[Assessment, tuple[bool, ...]]:
        """Return an option's assessment, and of each verdict whether it may turn out met."""
        option = proposed.option
        drop = predict_drop(option, self.sensitivity, recovers=self.recovers)
        predicted = {**proposed.costs, **(_named_drop(drop))}
        verdicts = tuple(
            judge(condition, sections_on(condition.device, [known, predicted], proposed.elsewhere))
            for condition in self.conditions
        )
        least = None
        if self.repairs and "accuracy_drop" not in known:
            least = _least_drop(option, self.sensitivity, recovers=self.recovers)
        # What a compiler estimated of its file stays a prediction, but no proof is still to come.
        unproven = self.provable - set(known)
        hopeful = tuple(_plausible(verdict, unproven, least) for verdict in verdicts)
        assessment = Assessment(
            option=option,
            expected_loss=self.sensitivity.loss(option),
            predicted=predicted,
            verdicts=verdicts,
            plausible=all(hopeful),
            possible=all(_plausible(v, unproven, least, at_best=True) for v in verdicts),
            gap=proposed.gap,
            elsewhere=proposed.elsewhere,
        )
        return assessment, hopeful


def sections_on(
    device: str, sections: Sequence[Figures], elsewhere: Mapping[str, Figures]
) -> list[Figures]:
    """Return what judges a condition on a device: ``sections`` on the one the artifact is first
    for; on another one what is predicted there, and of these the bytes of the file they share."""
    if not device:
        return list(sections)
    known = best_figure("size_bytes", list(sections))
    shared: Figures = {} if known is None else {"flash_bytes": known}
    return [shared, elsewhere[device]]


def _named_drop(drop: Figure | None) -> dict[FigureName, Figure]:
    return {} if drop is None else {"accuracy_drop": drop}


def resolve_budget(budget: Budget, *, can_score: bool) -> tuple[Budget, Objective]:
    """Return the budget to plan for, and what to minimise under it.

    Without any limit on speed or space, least loss would always mean "change nothing": the
    fastest plan within the drop is meant. Raises ``UsageError`` for a drop nobody can measure.
    """
    if budget.max_drop is not None and not can_score:
        raise UsageError(
            "a limit on the accuracy drop was asked of a task without evaluate()",
            next_step="give the Task an evaluate(predict, split) function, or drop --max-drop",
        )
    limits = (budget.latency_ms, budget.memory_bytes, budget.size_bytes)
    if any(limit is not None for limit in (*limits, budget.download_bytes, budget.energy_mj)):
        return budget, "least expected loss"
    if budget.max_drop is None and can_score:
        return Budget(max_drop=DEFAULT_MAX_DROP), "least latency"
    return budget, "least latency" if can_score else "least expected loss"


def _rank(assessment: Assessment, objective: Objective) -> tuple[float, float, str]:
    latency = assessment.slowest_ms
    if objective == "least latency":
        return latency, assessment.rank, assessment.option.name
    return assessment.rank, latency, assessment.option.name


def _least_drop(option: Option, sensitivity: Sensitivity, *, recovers: bool) -> float | None:
    """Return the drop that repair of an int8 option may reach: that of its float form."""
    if option.scheme != "int8":
        return None
    schemes = [point.scheme for point in sensitivity.formats if point.scheme in FLOAT_SCHEMES]
    if not schemes:  # --scheme int8 alone: what is left without its own format's drop
        own = predict_drop(option, sensitivity, recovers=recovers)
        rounding = sensitivity.format("int8")
        return None if own is None or own.low is None else own.low - (rounding.drop or 0.0)
    unrounded = option_for(
        option.widths,
        sensitivity.widths.full,
        schemes[0],
        removed_blocks=option.removed_blocks,
        splits=option.splits,
    )
    drop = predict_drop(unrounded, sensitivity, recovers=recovers)
    return None if drop is None else drop.low


def _plausible(
    verdict: Verdict, provable: Collection[FigureName], least: float | None = None, *,
    at_best: bool = False,
) -> bool:  # fmt: skip
    """Return whether a verdict may turn out met; ``least`` is the drop that repair may reach.

    A figure still to be proven counts by its prediction's centre, ``at_best`` by its lower end.
    """
    figure = verdict.figure
    if figure is None or figure.standing != "predicted":
        return verdict.met
    if not is_provable(verdict.condition, provable):
        return verdict.met
    optimistic: float | None = figure.value
    if at_best and figure.low is not None:
        optimistic = figure.low
    if verdict.condition.figure == "accuracy_drop":
        optimistic = min((f for f in (figure.low, least) if f is not None), default=None)
    return optimistic is not None and optimistic <= verdict.condition.limit


def _excess(verdict: Verdict) -> float:
    if verdict.figure is None:
        return float("inf")
    limit = verdict.condition.limit
    if verdict.condition.figure == "accuracy_drop":
        # A drop may be zero or negative, so its excess is counted in points above the limit.
        return 1.0 + max(0.0, verdict.figure.upper - limit)
    # A runtime that fills the device alone leaves nothing: every figure is too large for that.
    return verdict.figure.upper / limit if limit > 0 else float("inf")


def binding_condition(
    verdicts: Sequence[Verdict], feasibility: Sequence[Feasibility]
) -> FigureName | None:
    """Return the figure whose limit binds: one no option reaches, else the furthest exceeded."""
    broken = [verdict for verdict in verdicts if not verdict.met]
    out_of_reach = {row.figure for row in feasibility if not row.reachable}
    unreachable = [verdict for verdict in broken if verdict.condition.figure in out_of_reach]
    worst = max(unreachable or broken, key=_excess, default=None)
    return worst.condition.figure if worst else None


def _feasibility(
    condition: Condition, judged: Sequence[tuple[Assessment, tuple[bool, ...]]], full: Widths
) -> Feasibility:
    found = [
        (verdict, hopeful, assessment.option)
        for assessment, hopes in judged
        for verdict, hopeful in zip(assessment.verdicts, hopes, strict=True)
        if verdict.condition == condition
    ]
    known = [(v.figure.upper, option.name) for v, _, option in found if v.figure is not None]
    smallest = min(known, default=(None, None))
    original = next(v for v, _, option in found if option.is_whole(full))
    return Feasibility(
        figure=condition.figure,
        limit=condition.limit,
        smallest=smallest[0],
        smallest_option=smallest[1],
        original=original.figure.upper if original.figure else None,
        reachable=any(hopeful for _, hopeful, _ in found),
        device=condition.device,
    )
