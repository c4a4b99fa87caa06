"""Figures, steps and conditions as a person reads them, the same in every view."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from edgesdk.budget import Condition, Verdict, format_figure
from edgesdk.figure import TITLES, Figure, FigureName
from edgesdk.plan import AdaRound, Distil, Factorize, Prune, PrunedGroup, Qat, Quantize, Step

_FLAGS: Mapping[FigureName, str] = {
    "latency_ms": "--latency",
    "memory_bytes": "--memory",
    "size_bytes": "--size",
    "download_bytes": "--download",
    "energy_mj": "--energy",
    "accuracy_drop": "--max-drop",
}
_WITHOUT_PARAMETERS = {
    "finetune": "Recover with the task's own finetune()",
    "equalize": "Equalise the ranges of weights across layers",
    "bias_correction": "Correct biases for what rounding moves",
}
_UNITS: Mapping[FigureName, str] = {"latency_ms": "ms", "energy_mj": "mJ", "accuracy_drop": ""}


def show_figure(name: FigureName, figure: Figure | None) -> str:
    """Return a figure for a table cell, with the interval of a prediction; a dash if unknown."""
    if figure is None:
        return "–"
    text = format_figure(name, figure.value)
    interval = show_interval(name, figure)
    return f"{text} ({interval})" if interval and figure.standing == "predicted" else text


def show_interval(name: FigureName, figure: Figure) -> str:
    """Return "low to high", empty where a figure has no interval."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{format_figure(name, figure.low)} to {format_figure(name, figure.high)}"


def show_condition(condition: Condition) -> str:
    """Return the figure's title, and whose limit it is where nobody had to state it."""
    title = TITLES[condition.figure]
    title += f" on {condition.device}" if condition.device else ""
    return f"{title} (of the device)" if condition.asked_by == "device" else title


def show_limit(condition: Condition) -> str:
    """Return the limit, with the share of the baseline where that is how it was given."""
    limit = format_figure(condition.figure, condition.limit)
    if condition.relative is None:
        return limit
    return f"{limit} ({100 * condition.relative:g} % of the original)"


def _narrowed(group: PrunedGroup) -> str:
    """Return a group's layer with its width before and after, in heads where heads go."""
    if not group.heads:
        return f"{group.layer} {group.width_before} → {group.width_after}"
    left = group.heads * group.width_after // group.width_before
    return f"{group.layer} {group.heads} → {left} heads"


def explain_step(step: Step) -> str:
    """Return what a step of the plan does, in one sentence."""
    if isinstance(step, Prune):
        groups = ", ".join(map(_narrowed, step.groups))
        text = f"Prune {100 * step.ratio:.0f} % of the channels, by {step.importance}: {groups}"
        blocks = f"Remove {', '.join(step.removed_blocks)}" if step.removed_blocks else ""
        parts = [blocks, text if step.groups else ""]
        follow = "; batch norms follow" if step.moves_batch_norms else ""
        return ". ".join(part for part in parts if part) + follow
    if isinstance(step, Distil):
        return (
            f"Distil from the original: at most {step.epochs} epochs, temperature "
            f"{step.temperature:g}, alpha {step.alpha:g}"
        )
    if isinstance(step, AdaRound):
        return f"Choose how each weight is rounded (AdaRound), {step.iterations} steps a layer"
    if isinstance(step, Qat):
        return f"Train with int8 rounding simulated (QAT): at most {step.epochs} epochs"
    if isinstance(step, Factorize | Quantize):
        return _explain_layers(step)
    return _WITHOUT_PARAMETERS[step.kind]


def _explain_layers(step: Factorize | Quantize) -> str:
    """Return what a step does that names layers."""
    if isinstance(step, Factorize):
        ranks = ", ".join(f"{layer} at rank {rank}" for layer, rank in step.ranks.items())
        return f"Split layers in two of lower rank: {ranks}"
    layers = ", ".join(f"{name} in {scheme}" for name, scheme in step.layer_schemes.items())
    return f"Emit in {step.scheme}" + (f", but {layers}" if layers else "")


def budget_flags(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the flags of ``compile`` that ask for the same budget."""
    flags = []
    for condition in (verdict.condition for verdict in verdicts):
        if condition.device:  # asked of every device of a fleet, once
            continue
        if condition.asked_by == "budget" and condition.figure in _FLAGS:
            unit = _UNITS.get(condition.figure, "B")
            limit = f"{condition.limit:.10g}{unit}"
            if condition.relative is not None:
                limit = f"{100 * condition.relative:.10g}%"
            flags += [_FLAGS[condition.figure], limit]
    return flags


def shell_line(*words: str) -> str:
    """Return a command line that a shell reads as exactly those words."""
    return shlex.join(words)
