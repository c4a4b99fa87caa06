"""The report as one HTML file: no script, no network, every figure beside the JSON behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources

import jinja2
from markupsafe import Markup

from edgesdk.budget import format_figure
from edgesdk.document import to_builtins
from edgesdk.figure import TITLES, FigureName
from edgesdk.report.charts import (
    accuracy_rows,
    agreement_chart,
    comparison_charts,
    interval_chart,
    latency_rows,
    options_chart,
    sustained_chart,
)
from edgesdk.report.data import ArtifactData, ReportData, ReportMeasurement
from edgesdk.report.layer_chart import (
    drawn_layers,
    layer_name,
    layers_chart,
    measured_chart,
    measured_name,
)
from edgesdk.report.svg import Spec, draw
from edgesdk.report.words import show_condition, show_limit

# Every chart is drawn twice, for a page's column and for a phone, so that its text keeps its size.
_WIDE_PX, _NARROW_PX = 700, 312

_TILES: tuple[FigureName, ...] = ("latency_ms", "size_bytes", "memory_bytes", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart in the page: its name there, what it shows in words, and its two drawings."""

    name: str
    caption: str
    wide: Markup
    narrow: Markup


def render_page(data: ReportData) -> str:
    """Return the report as one HTML page that fetches nothing and runs no script.

    Raises ``TargetUnavailable`` where the charts' renderer is not installed.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgesdk.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        condition=show_condition, limit=show_limit, layer=layer_name, measured=measured_name
    )
    environment.globals.update(titles=TITLES, tiles=_TILES, format_figure=format_figure)
    return environment.get_template("report.html.j2").render(
        data=data,
        document=to_builtins(data),
        style=Markup(_read("report.css")),  # noqa: S704 - a file of ours
        comparison=_comparison_charts(data),
        charts=[_artifact_charts(index, item) for index, item in enumerate(data.artifacts)],
    )


def _read(name: str) -> str:
    return resources.files("edgesdk.report").joinpath("templates", name).read_text("utf-8")


def _chart(name: str, title: str, caption: str, spec: Callable[[int], Spec]) -> Chart:
    drawings = [
        Markup(draw(spec(px), name=f"{name}-{size}", title=title, description=caption))  # noqa: S704
        for size, px in (("wide", _WIDE_PX), ("narrow", _NARROW_PX))
    ]
    return Chart(name=name, caption=caption, wide=drawings[0], narrow=drawings[1])


def _comparison_charts(data: ReportData) -> list[Chart]:
    labels = [artifact.label for artifact in data.artifacts]
    return [
        _chart(
            f"compare-{name}",
            f"{TITLES[name]} of each artifact",
            f"{TITLES[name]}: a point for each artifact with its interval where one is known; "
            "hollow points are predictions.",
            partial(interval_chart, known, name),
        )
        for name, known in comparison_charts(labels, data.comparison)
    ]


def _artifact_charts(index: int, artifact: ArtifactData) -> dict[str, Chart]:
    charts: dict[str, Chart] = {}

    def add(kind: str, title: str, caption: str, spec: Callable[[int], Spec]) -> None:
        charts[kind] = _chart(f"a{index}-{kind}", f"{title}, {artifact.label}", caption, spec)

    layers = artifact.layers.layers
    if layers:
        drawn = len(drawn_layers(layers))
        some = "" if drawn == len(layers) else f" The {drawn} costliest of {len(layers)} layers."
        add(
            "layers",
            "Time, weights and expected loss by layer",
            f"Wide bars: the original in {artifact.layers.scheme_before}. Narrow bars: this "
            f"artifact in {artifact.layers.scheme_after}.{some}",
            lambda px: layers_chart(layers, px, stacked=px == _NARROW_PX),
        )
    if len(artifact.options) > 1:
        add(
            "options",
            "Options of the plan",
            "Filled points: options that no other one beats in both figures, joined by a line. The "
            "large point was taken. Dashed: limits of the budget.",
            partial(options_chart, artifact),
        )
    if artifact.agreements:
        add(
            "agreement",
            "Known figures over their predictions",
            "Bars: the 90 % interval of each prediction. Points: what turned out, as a multiple of "
            "the prediction's centre.",
            partial(agreement_chart, artifact.agreements),
        )
    accuracy = artifact.figure("accuracy")
    if accuracy is not None and len(accuracy_rows(accuracy)) > 1:
        rows = accuracy_rows(accuracy)
        add(
            "accuracy",
            "Accuracy of the original and of the artifact",
            "Points: accuracy on the test data. Lines: the 90 % interval that so many samples "
            "leave, where it is known.",
            partial(interval_chart, rows, "accuracy"),
        )
    return charts | _latency_charts(f"a{index}", artifact)


def _latency_charts(prefix: str, artifact: ArtifactData) -> dict[str, Chart]:
    """Return the chart of all measurements, where there is something to compare, and each one's."""
    charts: dict[str, Chart] = {}
    rows = latency_rows(artifact.measurements)
    if len(rows) > 1:
        charts["latencies"] = _chart(
            f"{prefix}-latencies",
            f"Latency, predicted and measured, {artifact.label}",
            "Filled points: the median of each measurement, from its least inference to its 90th "
            "percentile. Hollow: predicted, with the 90 % interval.",
            partial(interval_chart, rows, "latency_ms"),
        )
    for number, item in enumerate(artifact.measurements):
        charts |= _measurement_charts(prefix, artifact.label, number, item)
    return charts


def _measurement_charts(
    prefix: str, label: str, number: int, item: ReportMeasurement
) -> dict[str, Chart]:
    charts: dict[str, Chart] = {}
    title = f"measurement {number + 1} of {label}"
    if item.measurement.sustained:
        charts[f"sustained-{number}"] = _chart(
            f"{prefix}-sustained-{number}",
            f"Sustained run, {title}",
            "Median latency of each slice of the run. Dashed: the warm median.",
            partial(sustained_chart, item.measurement),
        )
    if item.layers:
        charts[f"measured-{number}"] = _chart(
            f"{prefix}-measured-{number}",
            f"Measured time by layer, {title}",
            "Narrow bars: measured, on the scale of an inference that nobody watches. Wide bars: "
            "predicted for this artifact.",
            partial(measured_chart, item.layers),
        )
    return charts
