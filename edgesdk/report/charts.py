"""The charts of a report as Vega-Lite specifications; all their numbers come from its data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgesdk.budget import format_figure
from edgesdk.figure import TITLES, Figure, FigureName
from edgesdk.measurement import Measurement
from edgesdk.report.data import Agreement, ArtifactData, ComparisonRow, FigureRow, ReportMeasurement
from edgesdk.report.describe import pareto_axes
from edgesdk.report.svg import Spec

ACCENT, BEFORE, INK, SOFT, LINE = (
    f"var(--{n})" for n in ("accent", "before", "ink", "soft", "line")
)
HOLLOW = "var(--paper)"

# A scale over more than this factor is logarithmic: on a linear one its small values coincide.
_LOGARITHMIC_FROM = 8.0
_PERCENT: tuple[FigureName, ...] = ("accuracy", "accuracy_drop")
_ROW_PX = 34
_LETTER_PX = 7.5
_NAMED: Spec = {"type": "nominal"}
_COMPARED: tuple[FigureName, ...] = ("latency_ms", "size_bytes", "memory_bytes", "accuracy")

_AXIS_TITLES: dict[FigureName, str] = {
    "latency_ms": "latency, ms",
    "energy_mj": "energy, mJ",
    "accuracy": "accuracy, %",
    "accuracy_drop": "accuracy drop, %",
}


def axis_value(name: FigureName, value: float) -> float:
    """Return a figure's value in the unit of its axis: percent, kB, or the figure's own."""
    if name in _PERCENT:
        return 100 * value
    return value / 1e3 if name.endswith("_bytes") else value


def _axis_title(name: FigureName) -> str:
    return _AXIS_TITLES.get(name, f"{TITLES[name].lower()}, kB")


def _scale(values: Sequence[float], **more: Any) -> dict[str, Any]:
    """Return a logarithmic scale where the values ask for one, else a linear one."""
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOGARITHMIC_FROM:
        return {"type": "log", "domain": [low / 1.2, high * 1.2], "nice": False, **more}
    return {"type": "linear", "nice": True, "zero": low > 0, **more}


def label_axis(labels: Sequence[str], most_px: int = 150) -> dict[str, Any]:
    """Return an axis of names with room for them in any font; longer ones end in an ellipsis."""
    extent = min(most_px, math.ceil(_LETTER_PX * max(map(len, labels))) + 12)
    return {"title": None, "minExtent": extent, "maxExtent": extent, "labelLimit": extent - 8}


def options_chart(artifact: ArtifactData, width: int) -> Spec:
    """Return the plan's options by latency and loss: efficient ones joined, limits dashed."""
    across, up = pareto_axes(artifact.options)
    points: list[dict[str, Any]] = [
        {
            "number": index,
            "x": axis_value(across, option.predicted[across].value),
            "y": axis_value(up, option.predicted[up].value),
            "role": _role(is_chosen=option.is_chosen, is_efficient=option.is_efficient),
        }
        for index, option in enumerate(artifact.options, 1)
        if across in option.predicted and up in option.predicted
    ]
    x = {"field": "x", "type": "quantitative", "scale": _scale([point["x"] for point in points]),
         "axis": {"title": f"predicted {_axis_title(across)}", "grid": False}}  # fmt: skip
    y = {"field": "y", "type": "quantitative", "scale": {"zero": True, "nice": True},
         "axis": {"title": f"predicted {_axis_title(up)}", "grid": True}}  # fmt: skip
    efficient = sorted((p for p in points if p["role"] != "other"), key=lambda p: p["x"])
    line = [p for p in efficient if artifact.options[p["number"] - 1].is_efficient]
    at = {"x": x, "y": y}
    layers: list[Spec] = [
        _limit_rule(artifact, across, "x"),
        _limit_rule(artifact, up, "y"),
        {"data": {"values": line}, "encoding": {**at, "order": {"field": "x"}},
         "mark": {"type": "line", "color": LINE, "strokeWidth": 2, "interpolate": "step-after"}},
        {"data": {"values": points}, "encoding": {**at, **_roles()},
         "mark": {"type": "point", "filled": True, "opacity": 1, "strokeWidth": 1.5}},
        {"data": {"values": efficient},
         "encoding": {**at, "text": {"field": "number", **_NAMED}},
         "mark": {"type": "text", "align": "left", "dx": 8, "dy": -8, "color": INK}},
    ]  # fmt: skip
    shown = [layer for layer in layers if layer]
    return _single({"layer": shown, "height": 260}, width)


def _roles() -> Spec:
    """Return how options look by role: the chosen one large, those that are beaten hollow."""
    looks = {
        "size": (180, 60, 40), "fill": (ACCENT, SOFT, HOLLOW), "stroke": (ACCENT, SOFT, SOFT),
    }  # fmt: skip
    roles = ["chosen", "efficient", "other"]
    return {
        channel: {
            "field": "role",
            "type": "nominal",
            "legend": None,
            "scale": {"domain": roles, "range": list(values)},
        }
        for channel, values in looks.items()
    }


def _role(*, is_chosen: bool, is_efficient: bool) -> str:
    return "chosen" if is_chosen else "efficient" if is_efficient else "other"


def _limit_rule(artifact: ArtifactData, name: FigureName, channel: str) -> Spec:
    """Return a dashed line at the strictest limit on a figure, nothing where there is none."""
    limits = [
        v.condition.limit
        for v in artifact.verdicts
        if v.condition.figure == name and not v.condition.device
    ]
    if not limits:
        return {}
    return {
        "data": {"values": [{channel: axis_value(name, min(limits))}]},
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": INK},
        "encoding": {channel: {"field": channel, "type": "quantitative"}},
    }


def agreement_chart(agreements: Sequence[Agreement], width: int) -> Spec:
    """Return each known figure over its prediction (1: as predicted), with the 90 % interval."""
    values: list[dict[str, Any]] = []
    for item in agreements:
        low, high = item.predicted.low, item.predicted.high
        assert low is not None
        assert high is not None
        values.append(
            {
                "figure": TITLES[item.figure],
                "low": low / item.predicted.value,
                "high": high / item.predicted.value,
                "ratio": item.ratio,
                "known_low": (item.known.low or item.known.value) / item.predicted.value,
                "known_high": (item.known.high or item.known.value) / item.predicted.value,
            }
        )
    ends = [number for v in values for number in (v["low"], v["high"], v["ratio"]) if number > 0]
    # An interval from 0 (a download: at most the file) has no place on a logarithmic axis.
    floor, ceiling = min(*ends, 0.9) / 1.05, max(*ends, 1.1) * 1.05
    for row in values:
        row["low"] = max(row["low"], floor)
    x = {
        "type": "quantitative",
        "scale": {"type": "log", "domain": [floor, ceiling], "nice": False},
        "axis": {
            "title": "known ÷ predicted",
            "labelOverlap": False,
            "labelExpr": "format(datum.value, '.2~f') + '×'",
            "values": _ratio_ticks(floor, ceiling),
        },
    }
    names = label_axis([TITLES[item.figure] for item in agreements])
    y = {"field": "figure", "type": "nominal", "sort": None, "axis": names}
    known = {"y": y, "x": {"field": "known_low", **x}, "x2": {"field": "known_high"}}
    return _single(
        {
            "data": {"values": values},
            "height": {"step": _ROW_PX},
            "layer": [
                {"mark": {"type": "rule", "color": SOFT},
                 "encoding": {"x": {"datum": 1, "type": "quantitative"}}},
                {"mark": {"type": "bar", "height": 10, "color": BEFORE, "cornerRadius": 2},
                 "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}}},
                {"mark": {"type": "rule", "color": ACCENT, "strokeWidth": 2}, "encoding": known},
                {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 90,
                          "color": ACCENT},
                 "encoding": {"y": y, "x": {"field": "ratio", **x}}},
            ],
        },
        width,
    )  # fmt: skip


def _ratio_ticks(low: float, high: float) -> list[float]:
    """Return ticks that read as factors: halves and doubles, or tenths around 1."""
    if high / low < 3:
        tenths = range(math.ceil(10 * low), math.floor(10 * high) + 1)
        step = 2 if len(tenths) > 6 else 1
        return [number / 10 for number in tenths if (number - 10) % step == 0]
    return [
        2.0**power for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    ]


def interval_chart(rows: Sequence[tuple[str, Figure]], name: FigureName, width: int) -> Spec:
    """Return one figure of several things: a point each, its interval, hollow where predicted."""
    values: list[dict[str, Any]] = [
        {
            "label": label,
            "value": axis_value(name, figure.value),
            "low": axis_value(name, figure.value if figure.low is None else figure.low),
            "high": axis_value(name, figure.value if figure.high is None else figure.high),
            "fill": HOLLOW if figure.standing == "predicted" else ACCENT,
            "shown": format_figure(name, figure.value),
        }
        for label, figure in rows
    ]
    ends = [float(row[key]) for row in values for key in ("low", "high")]
    scale = {"zero": False, "nice": True} if name in _PERCENT else _scale(ends)
    y = {
        "field": "label",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "labelLimit": 130},
    }
    x = {"type": "quantitative", "scale": scale, "axis": {"title": _axis_title(name)}}
    point = {"y": y, "x": {"field": "value", **x}}
    return _single(
        {
            "data": {"values": values},
            "height": {"step": _ROW_PX + 6},
            "layer": [
                {"mark": {"type": "rule", "color": SOFT, "strokeWidth": 2},
                 "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}}},
                {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 90,
                          "stroke": ACCENT, "strokeWidth": 2},
                 "encoding": {**point, "fill": {"field": "fill", "scale": None, **_NAMED}}},
                {"mark": {"type": "text", "dy": -12},
                 "encoding": {**point, "text": {"field": "shown", **_NAMED}}},
            ],
        },
        width,
    )  # fmt: skip


def sustained_chart(measurement: Measurement, width: int) -> Spec:
    """Return the sustained run: median latency over time, the warm median dashed."""
    values = [{"s": part.start_s, "ms": part.median_ms} for part in measurement.sustained]
    y = {"type": "quantitative", "scale": {"zero": True}, "axis": {"title": "ms", "grid": True}}
    x = {"field": "s", "type": "quantitative", "axis": {"title": "seconds since the start"}}
    return _single(
        {
            "height": 180,
            "layer": [
                {"data": {"values": [{"ms": measurement.p50_ms}]},
                 "mark": {"type": "rule", "strokeDash": [4, 4], "color": SOFT},
                 "encoding": {"y": {"field": "ms", **y}}},
                {"data": {"values": values}, "mark": {"type": "line", "color": ACCENT,
                 "strokeWidth": 2, "interpolate": "step-after"},
                 "encoding": {"x": x, "y": {"field": "ms", **y}}},
            ],
        },
        width,
    )  # fmt: skip


def comparison_charts(
    labels: Sequence[str], rows: Sequence[ComparisonRow]
) -> list[tuple[FigureName, list[tuple[str, Figure]]]]:
    """Return what is worth drawing of a comparison: figures that at least two artifacts have."""
    drawn: list[tuple[FigureName, list[tuple[str, Figure]]]] = []
    for row in rows:
        known = [(label, f) for label, f in zip(labels, row.best, strict=True) if f is not None]
        if len(known) > 1 and row.figure in (
            "latency_ms",
            "size_bytes",
            "memory_bytes",
            "accuracy",
        ):
            drawn.append((row.figure, known))
    return drawn


def accuracy_rows(row: FigureRow) -> list[tuple[str, Figure]]:
    """Return the accuracies of the original and of the artifact, as far as they are known."""
    named = (("original", row.baseline), ("artifact", row.best))
    return [(label, figure) for label, figure in named if figure is not None]


def latency_rows(measurements: Sequence[ReportMeasurement]) -> list[tuple[str, Figure]]:
    """Return the predicted latency, where one is about any of the measurements, and all theirs."""
    predicted = next((item.predicted for item in measurements if item.predicted), None)
    guess = [("predicted", predicted)] if predicted else []
    found = [
        (f"{number}. {item.measurement.device}", item.latency)
        for number, item in enumerate(measurements, 1)
    ]
    return [*guess, *found]


def _single(spec: dict[str, Any], width: int) -> Spec:
    """Return a single view that takes exactly that width, labels and all."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": width,
        "autosize": {"type": "fit", "contains": "padding"},
        **spec,
    }
