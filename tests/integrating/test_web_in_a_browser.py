"""The page for real: built, opened in headless Chromium, measuring, and its result in a report."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from programs import needs
from sealed import ARTIFACTS, sealed

from edgesdk.artifact import TensorSpec, read_manifest
from edgesdk.errors import MeasurementError, TargetUnavailable
from edgesdk.profiling.bench import Bench
from edgesdk.profiling.job import Job
from edgesdk.profiling.page import build_page
from edgesdk.profiling.profile import Profile, profile_artifact
from edgesdk.profiling.store import default_store
from edgesdk.progress import Silent
from edgesdk.report.reading import read_report
from edgesdk.task import InputSpec, OutputSpec

# Node.js comes from its makers as often as from the system's packages, so CI does not install it.
NEEDS_NPM = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
pytestmark = [pytest.mark.slow, needs("chromium"), NEEDS_NPM]

WAIT_MS = 120_000


@dataclass
class Visitor:
    """Progress that opens the address in Chromium, in a thread of its own as a person would."""

    seen: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    advanced: list[int] = field(default_factory=list)
    thread: threading.Thread | None = None

    def step(self, text: str) -> None:
        pass

    def advance(self, done: int, total: int, note: str = "") -> None:
        assert 0 <= done <= total
        assert note.endswith(" ms")
        self.advanced.append(done)

    def show_address(self, address: str, *, is_for_phones: bool) -> None:
        assert not is_for_phones
        self.thread = threading.Thread(target=self._visit, args=(address,), daemon=True)
        self.thread.start()

    def _visit(self, address: str) -> None:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page()
            problems: list[str] = []
            page.on("pageerror", lambda problem: problems.append(str(problem)))
            hosts: list[str] = []
            page.on("request", lambda request: hosts.append(request.url.split("/")[2]))
            page.goto(address)
            expect(page.locator("#benchmark")).to_be_enabled(timeout=WAIT_MS)
            violations = Axe().run(page).response["violations"]
            curve = page.locator("#curve svg")
            self.seen.put(
                {
                    "status": page.locator("#status").inner_text(),
                    "label": curve.get_attribute("aria-label"),
                    "line": page.locator("#curve polyline").get_attribute("points"),
                    "violations": violations,
                    "problems": problems,
                    "hosts": set(hosts),
                    "host": address.split("/")[2],
                }
            )
            browser.close()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the packages that all pages share."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(autouse=True)
def shared_cache(packages: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESDK_CACHE", str(packages))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """The demo task's artifact for phones."""
    return Path(shutil.copytree(ARTIFACTS / "digits_phone", tmp_path / "digits"))


def profiled(artifact: Path, on: str, visitor: Visitor) -> Profile:
    job = Job(
        folder=artifact,
        manifest=read_manifest(artifact),
        progress=visitor,
        bench=Bench(on=on),
        sustained_s=1.5,
    )
    with skipped_without_a_registry():
        return profile_artifact(job)


@contextmanager
def skipped_without_a_registry() -> Iterator[None]:
    try:
        yield
    except TargetUnavailable as problem:
        if "cannot reach its registry" in str(problem):
            pytest.skip(str(problem))
        raise


def test_the_page_measures_in_chromium_and_a_report_shows_it_from_the_store(
    artifact: Path, tmp_path: Path
) -> None:
    visitor = Visitor()
    profile = profiled(artifact, "browser", visitor)
    measurement = profile.measurement
    assert measurement.self_test is not None
    assert measurement.self_test.status == "passed"
    assert (measurement.device, measurement.identity.runtime) == ("browser", "litert.js")
    assert measurement.runs >= 100
    assert measurement.p50_ms > 0
    points = 8 + len(measurement.sustained)
    assert points > 8
    assert "HeadlessChrome" in (measurement.hardware.system or "")
    assert profile.predicted is None
    seen = visitor.seen.get(timeout=60)
    assert seen["status"] == "Measured and sent: this page can be closed"
    assert "Median inference" in seen["label"]
    assert len(seen["line"].split()) == points
    assert (seen["problems"], seen["violations"]) == ([], [])
    assert seen["hosts"] == {seen["host"]}
    assert len(visitor.advanced) == points

    number = default_store().add(measurement, label=profile.manifest.label)
    [described] = read_report([artifact], stored=default_store().all()).artifacts
    assert [(it.measurement, it.number) for it in described.measurements] == [(measurement, number)]
    assert not any(row.measured for row in described.figures)

    # The packages are in the cache now; without a GPU the page has to say so, not hang.
    visitor = Visitor()
    with pytest.raises(MeasurementError, match="offers no WebGPU"):
        profiled(artifact, "browser:webgpu", visitor)
    assert "Failed: this browser offers no WebGPU" in visitor.seen.get(timeout=60)["status"]


def test_a_page_without_picture_and_classes_is_built(tmp_path: Path) -> None:
    manifest = read_manifest(ARTIFACTS / "digits_phone")
    [given] = manifest.outputs
    folder = sealed(
        tmp_path / "plain",
        like="digits_phone",
        inputs=[(TensorSpec(name="signal", shape=(2, 5), dtype="float32", from_torch=(0, 1)),
                 InputSpec(name="signal", kind="tensor"))],
        outputs=[(replace(given, labels=(), shape=(2, 10)),
                  OutputSpec(name="vector", kind="tensor"))],
        batch_size=2,
    )  # fmt: skip
    (tmp_path / "page").mkdir()
    with skipped_without_a_registry():
        page = build_page(folder, tmp_path / "page", Silent())
    assert (page / "index.html").is_file()
    assert (page / "wasm/litert_wasm_internal.wasm").is_file()
