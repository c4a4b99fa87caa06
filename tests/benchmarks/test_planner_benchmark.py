"""The planner benchmark's own logic: intervals, what is remembered, bands, choice by halves."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from edgesdk.task import Task

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import planner  # noqa: E402 - scripts, found in their own folder
import planner_budgets  # noqa: E402
import planner_rank  # noqa: E402
from coarse_grid import uniform_network  # noqa: E402
from intervals import paired_difference, rank_correlation  # noqa: E402
from planner_exhaustive import best_by_halves  # noqa: E402
from planner_field import lead, shown  # noqa: E402
from planner_rank import Cell  # noqa: E402
from remembered import Remembered  # noqa: E402


def test_a_finished_cell_is_not_computed_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> float:
        calls.append(1)
        return 2.5

    memory = Remembered(path=tmp_path / "deep" / "cells.json")
    assert memory.cell("a", work) == 2.5
    assert Remembered(path=memory.path).cell("a", work) == 2.5
    assert len(calls) == 1
    assert memory.known() == {"a": 2.5}


def test_a_cell_that_fails_leaves_those_before_it(tmp_path: Path) -> None:
    memory = Remembered(path=tmp_path / "cells.json")
    memory.cell("a", lambda: 1)
    with pytest.raises(ZeroDivisionError):
        memory.cell("b", lambda: 1 // 0)
    assert memory.known() == {"a": 1}


def test_cells_within_cells_are_kept(tmp_path: Path) -> None:
    memory = Remembered(path=tmp_path / "cells.json")
    assert memory.cell("outer", lambda: memory.cell("inner", lambda: 1) + 1) == 2
    assert memory.known() == {"inner": 1, "outer": 2}


def test_a_correlation_lies_within_its_interval() -> None:
    expected = np.arange(30.0)
    real = expected + 6 * np.sin(expected * 12.9898)
    found = rank_correlation(list(expected), list(real))
    assert 0.5 < found.low <= found.value <= found.high < 1
    assert found.value == pytest.approx(spearmanr(expected, real).statistic)
    assert rank_correlation(list(expected), list(-expected)).value == pytest.approx(-1)


def test_the_difference_of_equals_is_zero_and_of_unequals_is_not() -> None:
    random = np.random.default_rng(1)
    hard = random.random(500) < 0.2
    ours = np.stack([~hard, ~hard, ~hard])
    same = paired_difference(ours, ours)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = ours & (random.random((3, 500)) < 0.9)
    found = paired_difference(ours, worse)
    assert 0 < found.low < found.value < found.high
    assert found.value == pytest.approx(ours.mean() - worse.mean())


def test_pairing_by_image_narrows_the_interval() -> None:
    """Which images are hard is common to both: it must not count as doubt about the difference."""
    random = np.random.default_rng(2)
    easy = random.random((1, 400)) < 0.5
    ours, theirs = easy.copy(), easy.copy()
    theirs[0, np.flatnonzero(easy[0])[:8]] = False
    paired = paired_difference(ours, theirs)
    unpaired = paired_difference(ours, random.permutation(theirs, axis=1))
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)


def test_the_best_of_a_half_is_scored_on_the_other() -> None:
    """Given a candidate that is lucky on one half only, Result: it is not credited with it."""
    lucky = np.array([[True, False] * 4])
    steady = np.array([[True, True, False, True] * 2])
    found = {("fp32", (8,)): lucky, ("int8", (8,)): steady}
    answers, chosen = best_by_halves(found, list(found))
    # Even images choose for odd ones: the lucky candidate. Odd ones choose the steady one.
    assert chosen == (("int8", (8,)), ("fp32", (8,)))
    assert answers[:, 0::2].tolist() == steady[:, 0::2].tolist()
    assert answers[:, 1::2].tolist() == lucky[:, 1::2].tolist()


def cells(band: float, count: int, *, sign: int = 1) -> list[Cell]:
    return [
        Cell(
            band=band,
            scheme="fp32",
            widths=(i,),
            expected=float(i),
            real=float(sign * i),
            accuracy=0.5,
        )
        for i in range(count)
    ]


def test_the_rank_table_says_whether_the_goal_is_met() -> None:
    band, other, *_ = planner_rank.BANDS
    lines = planner_rank.table("digits", cells(band, 12))
    assert lines[-2] == "mean 1.00, wanted 0.8: met"
    missed = planner_rank.table("digits", [*cells(band, 12), *cells(other, 12, sign=-1)])
    assert missed[-2] == "mean 0.00, wanted 0.8: missed"


def test_a_band_with_too_few_plans_has_no_correlation() -> None:
    lines = planner_rank.table("digits", cells(planner_rank.BANDS[0], planner_rank.FEWEST - 1))
    assert f"| {planner_rank.BANDS[0]} | {planner_rank.FEWEST - 1} | – | – |" in lines
    assert lines[-2].endswith("missed")


@pytest.mark.parametrize(
    ("cell", "share", "fewest", "problem"),
    [
        ({"status": "ok", "bytes": 300, "verification": "verified"}, 0.3, None, None),
        ({"status": "ok", "bytes": 301, "verification": "verified"}, 0.3, None, "301 bytes"),
        ({"status": "ok", "bytes": 300, "verification": "failed"}, 0.3, None, "verification"),
        ({"status": "ok", "bytes": 9, "verification": "verified"}, 0.01, None, "nothing can"),
        ({"status": "infeasible", "trained": 0}, 0.3, 250, "grid has 250"),
        ({"status": "infeasible", "trained": 0}, 0.3, 290, None),
        ({"status": "infeasible", "trained": 0}, 0.01, None, None),
        ({"status": "infeasible", "trained": 2}, 0.01, None, "trained 2 times"),
    ],
)
def test_a_broken_promise_is_named(
    cell: dict[str, object], share: float, fewest: float | None, problem: str | None
) -> None:
    found = planner_budgets.broken({"float": 1000.0, **cell}, share, fewest)
    assert found is None if problem is None else problem in str(found)


def test_training_is_heard() -> None:
    progress = planner_budgets.Listening()
    for text in ("Emitting int8 for tflite", "Recovering accuracy (distil)"):
        progress.step(text)
    assert progress.trained == ["Recovering accuracy (distil)"]


def test_the_field_is_shown_with_its_spread_and_the_lead() -> None:
    ours = [{"latency": 0.7, "right": "1111"}, {"latency": 0.72, "right": "1110"}]
    theirs = [{"latency": 0.7, "right": "1100"}]
    assert shown(ours) == "0.71 | 87.50 ± 17.68"
    assert lead(ours, theirs).startswith("37.50 (")


def test_every_section_has_tasks_in_both_subsets() -> None:
    for matrix in planner.MATRICES.values():
        assert all(getattr(matrix, name) for name in planner.SECTIONS)


def test_the_coarse_grid_keeps_a_share_of_every_group() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.Flatten(), nn.Linear(12, 2)
    )
    task = Task(name="two layers", model=model, example_inputs=(torch.zeros(1, 1, 5, 5),))
    half = uniform_network(task, 0.5)
    assert [m.out_channels for m in half.modules() if isinstance(m, nn.Conv2d)] == [4, 6]
