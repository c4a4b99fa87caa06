"""The chart of layers: where time, bytes and accuracy went, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgesdk.layer_change import LayerChange, LayerCost
from edgesdk.report.charts import ACCENT, BEFORE, label_axis
from edgesdk.report.data import MeasuredLayer
from edgesdk.report.svg import Spec

_ROW_PX = 20
_GAP_PX = 22
MOST_LAYERS = 32
"""More layers than this are not drawn: the costliest are, the table beside the chart has all."""


@dataclass(frozen=True, kw_only=True)
class _Measure:
    """What a column shows: its title, and its value of a layer before and after."""

    title: str
    before: Callable[[LayerChange], float | None]
    after: Callable[[LayerChange], float | None]


def _of(
    pick: Callable[[LayerCost], float],
) -> tuple[Callable[[LayerChange], float | None], Callable[[LayerChange], float | None]]:
    return (
        lambda change: None if change.before is None else pick(change.before),
        lambda change: None if change.after is None else pick(change.after),
    )


def _measures(layers: Sequence[LayerChange]) -> list[_Measure]:
    (ms_before, ms_after) = _of(lambda cost: cost.predicted_ms)
    (kb_before, kb_after) = _of(lambda cost: cost.weight_bytes / 1e3)
    measures = [
        _Measure(title="predicted time, ms", before=ms_before, after=ms_after),
        _Measure(title="weights, kB", before=kb_before, after=kb_after),
    ]
    if any(change.expected_loss for change in layers):
        loss = _Measure(
            title="expected loss", before=lambda _: None, after=lambda c: c.expected_loss
        )
        measures.append(loss)
    return measures


def drawn_layers(layers: Sequence[LayerChange]) -> list[LayerChange]:
    """Return the layers to draw, in order: those that cost or lose most where there are many."""

    def weight(change: LayerChange) -> float:
        costs = [cost.predicted_ms for cost in (change.before, change.after) if cost]
        return max(costs, default=0.0)

    kept = sorted(range(len(layers)), key=lambda index: -weight(layers[index]))[:MOST_LAYERS]
    return [layers[index] for index in sorted(kept)]


def layer_name(layer: str) -> str:
    """Return a layer's path; what the network does outside of any layer has none."""
    return layer or "(forward)"


def layers_chart(layers: Sequence[LayerChange], width: int, *, stacked: bool) -> Spec:
    """Return the layers' time, weights and loss: wide bars before, narrow ones after.

    Columns share their rows; ``stacked`` sets them below each other, for narrow screens.
    """
    drawn = drawn_layers(layers)
    measures = _measures(drawn)
    labels = label_axis([layer_name(change.layer) for change in drawn], 110 if stacked else 170)
    labels_px = int(labels["minExtent"])
    columns = 1 if stacked else len(measures)
    plot_px = (width - labels_px - _GAP_PX * (columns - 1) - 24) // columns
    views = [
        _column(drawn, measure, plot_px, labels if stacked or index == 0 else None)
        for index, measure in enumerate(measures)
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "vconcat" if stacked else "hconcat": views,
        "spacing": 24 if stacked else _GAP_PX,
    }


def _column(
    layers: list[LayerChange], measure: _Measure, plot_px: int, labels: Spec | None
) -> Spec:
    y = _rows([layer_name(change.layer) for change in layers], labels)
    values = [
        {
            "layer": layer_name(change.layer),
            "before": measure.before(change),
            "after": measure.after(change),
        }
        for change in layers
    ]
    return {
        "title": measure.title,
        "width": plot_px,
        "height": {"step": _ROW_PX},
        "data": {"values": values},
        "layer": _bars(y, {"title": None, "tickCount": 3}),
    }


def measured_chart(layers: Sequence[MeasuredLayer], width: int) -> Spec:
    """Return each layer's measured time as a narrow bar over its predicted one."""
    kept = sorted(range(len(layers)), key=lambda index: -layers[index].measured_ms)[:MOST_LAYERS]
    values = [
        {
            "layer": measured_name(layers[index]),
            "before": layers[index].predicted_ms,
            "after": layers[index].measured_ms,
        }
        for index in sorted(kept)
    ]
    names = [str(value["layer"]) for value in values]
    y = _rows(names, label_axis(names))
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": width,
        "autosize": {"type": "fit", "contains": "padding"},
        "height": {"step": _ROW_PX},
        "data": {"values": values},
        "layer": _bars(y, {"title": "ms"}),
    }


def measured_name(layer: MeasuredLayer) -> str:
    """Return a measured layer's path, or that its operators belong to none."""
    return "(not joined)" if layer.layer is None else layer_name(layer.layer)


def _rows(names: list[str], axis: Spec | None) -> Spec:
    """Return one row for each name, in order, whether or not it has a bar."""
    scale = {"domain": names}
    return {"field": "layer", "type": "nominal", "sort": None, "scale": scale, "axis": axis}


def _bars(y: Spec, axis: Spec) -> list[Spec]:
    """Return a wide bar for what was before, and a narrow one over it."""
    x = {"type": "quantitative", "axis": axis, "scale": {"zero": True}}
    return [
        {
            "mark": {"type": "bar", "height": height, "color": colour},
            "encoding": {"y": y, "x": {"field": field, **x}},
        }
        for field, height, colour in (("before", 14, BEFORE), ("after", 6, ACCENT))
    ]
