"""Cautions: what a budget does not forbid and nobody should overlook."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk.budget import DEFAULT_MAX_DROP, Verdict, format_figure
from edgesdk.figure import Figures, best_figure


def cautions(verdicts: Sequence[Verdict], sections: Sequence[Figures]) -> tuple[str, ...]:
    """Return the sentences to show beside an outcome, none where nothing is to be feared.

    A budget without a limit on the drop is kept by a network that has lost everything, so a drop
    above one point of the metric is named. ``sections`` are the figures known, of every standing.
    """
    if any(verdict.condition.figure == "accuracy_drop" for verdict in verdicts):
        return ()
    drop = best_figure("accuracy_drop", list(sections))
    if drop is None or drop.value <= DEFAULT_MAX_DROP:
        return ()
    verb = "is predicted to lose" if drop.standing == "predicted" else "lost"
    accuracy = best_figure("accuracy", list(sections))
    left = f" ({format_figure('accuracy', accuracy.value)} is left)" if accuracy else ""
    lost = format_figure("accuracy_drop", drop.value)
    return (
        f"it {verb} {lost} of accuracy{left}, on which the budget sets no limit: "
        "add --max-drop, which also decides how much training the plan may need",
    )
