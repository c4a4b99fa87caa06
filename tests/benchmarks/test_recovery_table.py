"""The recovery benchmark: its tasks without data, and what it prints and takes up again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgesdk.errors import TaskError
from edgesdk.task_source import load_task

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import recovery  # noqa: E402 - a script, found in its own folder
from recovery import Cell  # noqa: E402


def cell(technique: str, accuracy: float, *, bits: int = 4, seed: int = 0) -> Cell:
    return Cell(
        task="digits", bits=bits, technique=technique, seed=seed, accuracy=accuracy, seconds=1.0
    )


def test_missing_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESDK_DATA", str(tmp_path))
    with pytest.raises(TaskError, match=r"train-images.*does not exist.*EDGESDK_DATA"):
        load_task(f"{BENCHMARKS / 'tasks' / 'fashion_mnist.py'}:depthwise")


def test_the_table_has_means_and_spreads() -> None:
    cells = [
        cell("float", 0.95, bits=32),
        cell("nearest", 0.5),
        cell("qat", 0.9),
        cell("qat", 0.92, seed=1),
    ]
    lines = recovery.table("digits", cells)
    assert lines[0] == "digits: 95.00 % in float"
    assert "| nearest | – | 50.00 | – | 1 |" in lines
    assert "| qat | – | 91.00 ± 1.41 | – | 1 |" in lines


def test_cells_done_are_read_again(tmp_path: Path) -> None:
    assert recovery.read_cells(tmp_path / "none") == []
    state = tmp_path / "state.jsonl"
    state.write_text(
        '{"task": "digits", "bits": 4, "technique": "qat", "seed": 0, "accuracy": 0.9,'
        ' "seconds": 1.0}\n',
        encoding="utf-8",
    )
    assert recovery.read_cells(state) == [cell("qat", 0.9)]
