"""The page in Chromium: every number is the JSON's, nothing is cut off, everybody can use it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from programs import needs
from whole_artifacts import layers, plan, write_artifact

from edgesdk.budget import format_figure
from edgesdk.report.html import render_page
from edgesdk.report.reading import read_report

pytestmark = [pytest.mark.slow, needs("chromium")]

ATTACK = "</script><script>document.title = 'owned'</script><img src=x onerror='document.title=1'>"
# An A4 page of 210 mm less the margins of the style sheet, at 96 pixels an inch.
PAPER_PX = round((210 - 28) / 25.4 * 96)

NUMBERS = """() => {
  const data = JSON.parse(document.getElementById('report-data').textContent);
  return [...document.querySelectorAll('data')].map(element => ({
    path: element.dataset.path,
    kind: element.dataset.kind,
    value: Number(element.value),
    text: element.textContent,
    behind: element.dataset.path.split('.').reduce((at, key) => at?.[key], data),
  }));
}"""
OPEN = "() => document.querySelectorAll('details').forEach(d => { d.open = true; })"
BEYOND = """width => [...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  const clipped = element.closest('.scroll, svg, .unseen, fieldset');
  return box.width > 1 && box.right > width + 1 && !clipped;
}).map(element => element.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


Theme = Literal["light", "dark"]


def opened(browser: Browser, path: Path, *, width: int = 1000, theme: Theme = "light") -> Page:
    """Return the page, which fails a test for anything it logs, throws or asks of a network."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, offline=True
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda problem: said.append(str(problem)))
    page.on("request", lambda request: said.append(request.url))
    page.goto(path.as_uri())
    assert said == [path.as_uri()]
    return page


@pytest.mark.parametrize("name", ["page_of_one", "page_of_two"])
def test_every_number_is_the_json_s(
    browser: Browser, name: str, request: pytest.FixtureRequest
) -> None:
    page = opened(browser, request.getfixturevalue(name))
    numbers = page.evaluate(NUMBERS)
    assert len(numbers) > 100
    for number in numbers:
        assert number["value"] == number["behind"], number
        assert number["text"] == format_figure(number["kind"], number["behind"]), number
    shown = {number["path"] for number in numbers}
    data = json.loads(page.locator("#report-data").text_content() or "")
    for index, artifact in enumerate(data["artifacts"]):
        for at, verdict in enumerate(artifact["verdicts"]):
            path = f"artifacts.{index}.verdicts.{at}"
            assert {f"{path}.condition.limit", f"{path}.figure.value"} <= shown
            assert (verdict["figure"]["low"] is None) == (f"{path}.figure.low" not in shown)


def test_every_runner_stands_in_one_row_of_one_table(browser: Browser, page_of_one: Path) -> None:
    page = opened(browser, page_of_one)
    data = json.loads(page.locator("#report-data").text_content() or "")
    [artifact] = data["artifacts"]
    region = page.get_by_role("region", name="Measurements side by side, small")
    rows = region.locator("tbody tr")
    assert rows.count() == len(artifact["measurements"]) == 3
    for index, item in enumerate(artifact["measurements"]):
        timed, said = item["measurement"], " ".join(rows.nth(index).inner_text().split())
        identity = timed["identity"]
        for text in (timed["device"], f"{identity['runtime']} {identity['version']}"):
            assert text in said
        for at in ("latency.value", "latency.low", "latency.high"):
            path = f"artifacts.0.measurements.{index}.{at}"
            assert rows.nth(index).locator(f"data[data-path='{path}']").count() == 1
        judged = rows.nth(index).locator(
            f"[data-path='artifacts.0.measurements.{index}.predicted.value']"
        )
        assert judged.count() == (0 if item["departures"] else 1)
        test = timed["self_test"]
        assert (test["status"] if test else "not told") in said
        assert said.endswith(str(item["number"] or "–"))
    text = page.locator("#artifact-0").inner_text()
    assert "It ran on browser, not board; with litert.js, not tflite-micro, and judges" in text
    assert "It ran on the gpu, not cpu, and judges nothing here." in text
    assert page.locator("figure#a0-latencies svg:visible").count() == 1
    assert page.locator("figure[id^='a0-sustained'] svg:visible").count() == 2


def test_verdicts_are_said_in_words(browser: Browser, page_of_two: Path) -> None:
    page = opened(browser, page_of_two)
    assert page.locator("#artifact-0 .verdict").inner_text().split() == (
        ["✓", *["Keeps", "its", "budget.", "All", "4", "conditions", "are", "met."]]
    )
    assert "Misses its budget. 3 of 4 conditions are met." in " ".join(
        page.locator("#artifact-1 .verdict").inner_text().split()
    )
    assert page.title() == "2 artifacts side by side · edgesdk report"


def test_a_name_that_is_markup_stays_a_name(browser: Browser, tmp_path: Path) -> None:
    rows = (*layers().layers[:3], *layers(layers=()).layers)
    folder = write_artifact(
        tmp_path / "out",
        made=plan(option=ATTACK, reasons=(ATTACK,)),
        changed=layers(layers=rows),
        task=ATTACK,
        device=ATTACK,
    )
    path = tmp_path / "page.html"
    path.write_text(render_page(read_report([folder])), encoding="utf-8")
    page = opened(browser, path)
    assert page.title() == f"{ATTACK} on {ATTACK} · edgesdk report"
    assert page.locator("script:not(#report-data), img").count() == 0
    assert page.locator("h1").inner_text() == f"{ATTACK} on {ATTACK}"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_axe_finds_nothing(browser: Browser, page_of_two: Path, theme: Theme, width: int) -> None:
    page = opened(browser, page_of_two, theme=theme, width=width)
    page.evaluate(OPEN)
    found = Axe().run(page)
    assert found.response["violations"] == [], found.generate_report()
    checked = {rule["id"] for rule in found.response["passes"]}
    assert {"color-contrast", "svg-img-alt", "region"} <= checked
    # Tables scroll only where the page is narrow.
    assert width > 360 or "scrollable-region-focusable" in checked


def test_everything_is_reached_and_used_by_the_keyboard(
    browser: Browser, page_of_one: Path
) -> None:
    page = opened(browser, page_of_one)
    page.evaluate(OPEN)
    page.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = false; })")
    wanted = page.locator("summary").count()
    reached: list[Any] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.tagName")
        if name == "BODY":
            break
        reached.append(name)
        if name == "SUMMARY":
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.parentElement.open")
    assert reached.count("SUMMARY") == wanted
    regions = page.locator("[tabindex='0']").count()
    assert len(reached) == 1 + wanted + regions  # and the one radio button of the switch


def test_the_switch_changes_the_colours_without_a_script(
    browser: Browser, page_of_one: Path
) -> None:
    page = opened(browser, page_of_one, theme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#theme-light").is_checked()
    assert page.evaluate(paper) == light
    page.keyboard.press("ArrowRight")
    assert page.locator("#theme-dark").is_checked()
    dark = page.evaluate(paper)
    assert dark != light
    assert dark == opened(browser, page_of_one, theme="dark").evaluate(paper)


@pytest.mark.parametrize("name", ["page_of_one", "page_of_two"])
def test_a_phone_needs_no_sideways_scrolling(
    browser: Browser, name: str, request: pytest.FixtureRequest
) -> None:
    page = opened(browser, request.getfixturevalue(name), width=360)
    page.evaluate(OPEN)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(BEYOND, 360) == []
    boxes = page.locator("figure svg:visible").evaluate_all(
        "all => all.map(one => [one.getBoundingClientRect().right,"
        " one.getBoundingClientRect().width / one.viewBox.baseVal.width])"
    )
    assert boxes
    assert max(right for right, _ in boxes) <= 360
    assert min(scale for _, scale in boxes) > 0.99  # text keeps its size


def test_paper_shows_everything(browser: Browser, page_of_two: Path) -> None:
    page = opened(browser, page_of_two, width=PAPER_PX, theme="dark")
    page.emulate_media(media="print")
    assert page.evaluate(BEYOND, PAPER_PX) == []
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).length"
    assert page.locator(".scroll").evaluate_all(cut) == 0
    assert page.locator("details table").evaluate_all(
        "all => all.every(one => one.getBoundingClientRect().height > 20)"
    )
    ink = page.evaluate("getComputedStyle(document.body).color")
    page.emulate_media(media="screen", color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).color") == ink
    assert page.pdf(format="A4").startswith(b"%PDF")
