"""The page as text: self-contained, escaped, its drawings true to the data."""

from __future__ import annotations

import builtins
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whole_artifacts import layers, plan, write_artifact

from edgesdk.document import to_builtins
from edgesdk.errors import TargetUnavailable
from edgesdk.layer_change import LayerChange
from edgesdk.report.charts import agreement_chart, options_chart
from edgesdk.report.data import ReportData
from edgesdk.report.html import render_page
from edgesdk.report.layer_chart import MOST_LAYERS, drawn_layers, layers_chart
from edgesdk.report.reading import read_report
from edgesdk.report.svg import draw

ATTACK = "</script><script>document.title = 'owned'</script><img src=x onerror=alert(1)>"
SVG = "{http://www.w3.org/2000/svg}"


def embedded(page: str) -> Any:
    [text] = re.findall(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    return json.loads(text)


def test_the_page_holds_its_data_and_fetches_nothing(one: ReportData, page_of_one: Path) -> None:
    page = page_of_one.read_text(encoding="utf-8")
    assert embedded(page) == to_builtins(one)
    assert page.count("<script") == 1
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)", page)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_equal_data_makes_an_equal_page(one: ReportData, page_of_one: Path) -> None:
    assert render_page(one) == page_of_one.read_text(encoding="utf-8")


def test_no_name_is_read_as_markup(tmp_path: Path) -> None:
    row = replace(layers().layers[0], layer=ATTACK, kinds=(ATTACK,))
    folder = write_artifact(
        tmp_path / "<b>out<",
        made=plan(option=ATTACK, reasons=(ATTACK,)),
        changed=layers(layers=(row,)),
        task=ATTACK,
        tool_versions={ATTACK: ATTACK},
    )
    data = read_report([folder])
    page = render_page(data)
    assert embedded(page) == to_builtins(data)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "<b>out" not in page
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert not parsed(drawing).findall(f".//{SVG}script")


def test_ids_in_the_page_are_unique_and_what_is_named_exists(page_of_two: Path) -> None:
    page = page_of_two.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    named = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page))
    labels = " ".join(re.findall(r'aria-labelledby="([^"]+)"', page)).split()
    assert {*(a or b for a, b in named), *labels} <= set(ids)


def parsed(drawing: str) -> ET.Element:
    return ET.fromstring(drawing)  # noqa: S314 - what we drew ourselves


def drawn(spec: Any) -> ET.Element:
    return parsed(draw(spec, name="chart", title="t <", description="d &"))


def widths_of(root: ET.Element, colour: str) -> list[float]:
    """Return the widths of the bars of a colour, in the order in which they are drawn."""
    paths = [p.get("d", "") for p in root.iter(f"{SVG}path") if p.get("fill") == colour]
    return [float(re.search(r"h(-?[\d.]+)", path).group(1)) for path in paths]  # type: ignore[union-attr]


def test_bars_are_as_long_as_their_numbers(one: ReportData) -> None:
    rows = one.artifacts[0].layers.layers
    root = drawn(layers_chart(rows, 700, stacked=False))
    before = widths_of(root, "var(--before)")
    wanted = [row.before.predicted_ms for row in rows if row.before]
    scale = before[0] / wanted[0]
    assert before[: len(rows)] == pytest.approx([scale * value for value in wanted], abs=0.01)
    after = widths_of(root, "var(--accent)")
    wanted = [row.after.predicted_ms for row in rows if row.after]
    assert after[: len(rows)] == pytest.approx([scale * value for value in wanted], abs=0.01)


def test_every_column_has_every_layer_in_its_row(one: ReportData) -> None:
    rows = one.artifacts[0].layers.layers
    root = drawn(layers_chart(rows, 700, stacked=False))
    bars = [p.get("d", "") for p in root.iter(f"{SVG}path") if p.get("fill") == "var(--accent)"]
    tops = [float(re.match(r"M[\d.]+,([\d.]+)", path).group(1)) for path in bars]  # type: ignore[union-attr]
    time, weights, loss = tops[: len(rows)], tops[len(rows) : 2 * len(rows)], tops[2 * len(rows) :]
    assert time == weights
    assert loss == [time[index] for index, row in enumerate(rows) if row.expected_loss]


def test_many_layers_are_drawn_down_to_the_costliest() -> None:
    first = layers().layers[0]
    assert first.after is not None
    rows: list[LayerChange] = [
        replace(first, layer=f"layer{n}", before=None, after=replace(first.after, predicted_ms=n))
        for n in range(100)
    ]
    kept = drawn_layers(rows)
    assert [row.layer for row in kept] == [f"layer{n}" for n in range(100 - MOST_LAYERS, 100)]


def test_a_chart_is_one_named_image_whose_text_is_text(one: ReportData) -> None:
    root = drawn(agreement_chart(one.artifacts[0].agreements, 312))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "chart-title chart-desc"
    texts = [element.text for element in root]
    assert texts[:2] == ["t <", "d &"]
    shown = {element.text for element in root.iter(f"{SVG}text")}
    assert {"Latency", "Memory", "File size", "1×"} <= shown
    assert float(root.get("width", "inf")) <= 312


@pytest.mark.parametrize("width", [312, 700])
def test_charts_keep_their_width(one: ReportData, width: int) -> None:
    for spec in (
        options_chart(one.artifacts[0], width),
        layers_chart(one.artifacts[0].layers.layers, width, stacked=width < 400),
    ):
        assert float(drawn(spec).get("width", "inf")) <= width + 1


def test_without_the_renderer_the_command_that_installs_it_is_named(
    one: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "vl_convert":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TargetUnavailable, match=r'pip install "edgesdk\[report\]"'):
        render_page(one)
