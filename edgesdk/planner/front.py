"""The Pareto front: the options that no other one beats in every figure."""

from __future__ import annotations

from edgesdk.figure import FigureName
from edgesdk.plan import FrontPoint
from edgesdk.planner.search import Assessment, Decision

# What an option is for when no limit says so.
_AXES: tuple[FigureName, ...] = ("latency_ms", "size_bytes")


def pareto_front(decision: Decision, *, taken: Assessment) -> tuple[FrontPoint, ...]:
    """Return the options that nothing beats in expected loss, latency, and what is limited.

    ``taken`` is among them even where it is beaten, as the option nearest to a budget may be.
    The fastest comes first.
    """
    limited = {c.figure for c in decision.conditions if c.figure != "accuracy_drop"}
    axes = tuple(dict.fromkeys(("latency_ms", *sorted(limited)))) if limited else _AXES
    scores = {item.option: _scores(item, axes) for item in decision.assessments}
    kept = [
        item
        for item in decision.assessments
        if item.option == taken.option
        or not any(_beats(other, scores[item.option]) for other in scores.values())
    ]
    kept.sort(key=lambda item: (scores[item.option][1], item.expected_loss))
    return tuple(
        FrontPoint(
            option=item.option.name,
            expected_loss=item.expected_loss,
            predicted=item.predicted,
            fits=item.plausible,
            chosen=item.option == taken.option,
        )
        for item in kept
    )


def _scores(item: Assessment, axes: tuple[FigureName, ...]) -> tuple[float, ...]:
    figures = (item.predicted.get(name) for name in axes)
    return (item.expected_loss, *(f.value if f else float("inf") for f in figures))


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
