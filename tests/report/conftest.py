"""Fixtures of the reports' tests: whole artifacts, and the pages drawn of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from whole_artifacts import measurement, write_artifact

from edgesdk.document import to_json
from edgesdk.measurement import RuntimeIdentity, SelfTest
from edgesdk.profiling.store import Stored
from edgesdk.report.data import ReportData
from edgesdk.report.html import render_page
from edgesdk.report.reading import read_report


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A whole artifact in a folder of its own."""
    return write_artifact(tmp_path / "small")


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """The data of a report on one artifact and a measurement of it."""
    folder = write_artifact(tmp_path_factory.mktemp("one") / "small")
    timed = folder.parent / "phone.json"
    timed.write_text(to_json(measurement(folder)))
    return read_report([folder], [timed], _stored(folder))


def _stored(folder: Path) -> list[Stored]:
    """Return what two other runners measured of the artifact: a browser, and a board's GPU."""
    page = RuntimeIdentity(
        runtime="litert.js", version="2.5.3", platform="wasm", unit="cpu", threads=1
    )
    gpu = replace(page, runtime="tflite-micro", unit="gpu")
    failed = SelfTest(status="failed", samples=64, sqnr_db=8.1, detail="compared")
    made = (
        measurement(folder, device="browser", identity=page, per_op=None, self_test=failed),
        measurement(folder, identity=gpu, sustained=(), self_test=None),
    )
    return [
        Stored(number=number, label="digits", measurement=item)
        for number, item in enumerate(made, 7)
    ]


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """The data of a report on two artifacts, one of them missing its budget when measured."""
    root = tmp_path_factory.mktemp("two")
    folders = [write_artifact(root / name) for name in ("small", "other")]
    timed = root / "slow.json"
    slow = {"minimum_ms": 8.5, "p50_ms": 9.0, "p90_ms": 9.5, "p99_ms": 11.0}
    timed.write_text(to_json(measurement(folders[1], **slow)))
    return read_report(folders, [timed])


@pytest.fixture(scope="session")
def page_of_one(one: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page on one artifact."""
    return _written(one, tmp_path_factory.mktemp("page") / "one.html")


@pytest.fixture(scope="session")
def page_of_two(two: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page on two artifacts."""
    return _written(two, tmp_path_factory.mktemp("page") / "two.html")


def _written(data: ReportData, path: Path) -> Path:
    path.write_text(render_page(data), encoding="utf-8")
    return path
