"""Compiling with a bench: every candidate is measured on a board, over a real connection."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blobs_task import blobs
from profiled import make_python
from programs import needs
from ssh_board import Board, serve_board

from edgesdk.artifact import read_manifest
from edgesdk.budget import Budget
from edgesdk.errors import BudgetInfeasible, MeasurementError, ParityError, UsageError
from edgesdk.pipeline import compile_task
from edgesdk.profiling.bench import Bench
from edgesdk.result import CompileResult

DEVICE = "raspberry_pi_5"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with serve_board(tmp_path / "board") as served:
        yield served


def bench_of(board: Board, python: str = sys.executable) -> Bench:
    return Bench(on=f"ssh:{board.place}", python=python, ssh_config=board.config)


def compile_on(bench: Bench, out: Path, **budget: str) -> CompileResult:
    return compile_task(
        blobs(), device=DEVICE, target="tflite", budget=Budget.parse(**budget), bench=bench, out=out
    )


@pytest.mark.slow
@needs("sshd")
def test_a_budget_is_judged_by_what_the_board_measured(board: Board, tmp_path: Path) -> None:
    result = compile_on(bench_of(board), tmp_path / "out", latency="150%", max_drop="5%")
    latency = result.measured["latency_ms"]
    assert latency.standing == "measured"
    assert result.baseline["latency_ms"].standing == "measured"
    [verdict] = [v for v in result.verdicts if v.condition.figure == "latency_ms"]
    assert verdict.met
    assert verdict.figure == latency
    assert verdict.condition.limit == pytest.approx(1.5 * result.baseline["latency_ms"].value)
    measurement = read_manifest(tmp_path / "out").measurement
    assert measurement is not None
    assert "profile --on ssh" in measurement.measured_by
    assert (measurement.device, measurement.p50_ms) == (DEVICE, latency.value)
    assert measurement.self_test is not None
    assert measurement.self_test.status == "passed"
    assert board.left_behind() == []


@pytest.mark.slow
@needs("sshd")
def test_what_the_board_cannot_do_is_refused_by_its_measurement(
    board: Board, tmp_path: Path
) -> None:
    """The profile expects less than a millisecond; this board takes 30."""
    slow = make_python(tmp_path / "slow", invoke="time.sleep(0.03)")
    with pytest.raises((BudgetInfeasible, ParityError)) as caught:
        compile_on(bench_of(board, str(slow)), tmp_path / "out", latency="5ms")
    # The stand-in doubles its input instead of running the network, which is found first.
    assert isinstance(caught.value, ParityError)
    assert "does not answer the golden vectors" in str(caught.value)
    assert not (tmp_path / "out").exists()


@needs("sshd")
def test_a_board_that_disappears_ends_the_search_with_nothing_written(
    board: Board, tmp_path: Path
) -> None:
    board.server.kill()
    board.server.wait()
    with pytest.raises(MeasurementError, match="failed or was cut"):
        compile_on(bench_of(board), tmp_path / "out", latency="5ms")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("device", "on", "message"),
    [
        (DEVICE, "local", "does not measure"),
        ("host", "ssh:pi@board", "does not measure"),
        (DEVICE, "import:m.json", "none can be imported"),
        (DEVICE, "browser", "open a page for each"),
        ("samsung_galaxy_s24", "adb", "runs on the CPU"),
        (DEVICE, "telepathy", "unknown runner"),
    ],
)
def test_a_bench_that_does_not_fit(device: str, on: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        compile_task(blobs(), device=device, bench=Bench(on=on), out=tmp_path / "out")
