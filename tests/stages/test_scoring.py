from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs_task import blobs
from torch import Tensor

from edgesdk.budget import Budget
from edgesdk.cache import Cache
from edgesdk.device import DeviceProfile
from edgesdk.effort import Effort
from edgesdk.planner.uncertainty import drop_margin
from edgesdk.progress import Silent
from edgesdk.stages.request import Request, resolve
from edgesdk.stages.scoring import (
    PairedPredict,
    Score,
    accuracy_figures,
    score_original,
    score_predict,
)
from edgesdk.task import Metric, OutputSpec, Predict, Split

LOGITS = (OutputSpec(name="y", kind="logits"),)


def answering(outputs: Tensor) -> Predict:
    return lambda *_: outputs


def test_pairs_count_samples_and_moved_winners_over_all_calls() -> None:
    wanted, got = torch.eye(4), torch.eye(4)
    got[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    paired = PairedPredict(answering(got), answering(wanted), LOGITS)
    for _ in range(2):
        assert torch.equal(torch.as_tensor(paired(torch.zeros(4, 1))), got)
    assert (paired.samples, paired.moved, paired.disagreement) == (8, 2, 0.25)


def test_the_original_is_not_run_where_no_output_is_logits() -> None:
    def never(*_: Tensor) -> Tensor:
        raise AssertionError

    paired = PairedPredict(answering(torch.eye(4)), never, (OutputSpec(name="y"),))
    paired(torch.zeros(4, 1))
    assert (paired.samples, paired.disagreement) == (4, None)


def test_nothing_seen_is_no_disagreement_known() -> None:
    paired = PairedPredict(answering(torch.eye(4)), answering(torch.eye(4)), LOGITS)
    assert paired.disagreement is None


Asking = Callable[..., Request]


@pytest.fixture
def request_for(reference_device: DeviceProfile, tmp_path: Path) -> Asking:
    def ask(**changes: Any) -> Request:
        return resolve(
            replace(blobs(), **changes),
            device=reference_device,
            target=None,
            budget=Budget(),
            effort=Effort(),
            accelerator="cpu",
            cache=Cache(tmp_path / "cache"),
            progress=Silent(),
            needs_toolchain=False,
        )

    return ask


def test_a_score_is_computed_once_for_a_key_and_split(request_for: Asking) -> None:
    asked: list[Split] = []

    def evaluate(predict: Predict, split: Split) -> float:
        asked.append(split)
        predict(torch.zeros(5, 8))
        return 0.5

    request = request_for(evaluate=evaluate, source="this test")
    for _ in range(2):
        for split in ("validation", "test"):
            score = score_predict(request, answering(torch.zeros(5, 4)), split, "key")
            assert (score.value, score.samples) == (0.5, 5)
    assert asked == ["validation", "test"]
    score_predict(request, answering(torch.zeros(5, 4)), "test", "other key")
    assert asked == ["validation", "test", "test"]


def test_the_original_agrees_with_itself(request_for: Asking) -> None:
    score = score_original(request_for(), "test")
    assert (score.samples, score.disagreement) == (500, 0.0)
    assert score.value > 0.9


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 100.0), (-1.0, 1.0)])
def test_a_drop_is_a_share_of_the_metrics_range(
    request_for: Asking, low: float, high: float
) -> None:
    span = high - low

    def evaluate(predict: Predict, split: Split) -> float:
        predict(torch.zeros(5, 8))
        return low + 0.9 * span

    request = request_for(evaluate=evaluate, metric=Metric(low=low, high=high), source=f"{span}")
    score = Score(value=low + 0.8 * span, samples=400, disagreement=0.04)
    found = accuracy_figures(request, score, "test", standing="verified", source="numpy")
    margin = drop_margin(disagreement=0.04, samples=400)
    drop, accuracy = found["accuracy_drop"], found["accuracy"]
    assert drop.value == pytest.approx(0.1)
    assert (drop.low, drop.high) == pytest.approx((0.1 - margin, 0.1 + margin))
    assert accuracy.value == score.value
    assert (accuracy.low, accuracy.high) == pytest.approx(
        (low + (0.8 - margin) * span, low + (0.8 + margin) * span)
    )
    assert "400 test samples, numpy" in drop.source


def test_an_accuracys_interval_stays_within_the_range(request_for: Asking) -> None:
    score = Score(value=1.0, samples=4, disagreement=1.0)
    found = accuracy_figures(request_for(), score, "test", standing="verified", source="x")
    assert found["accuracy"].high == 1.0
    assert found["accuracy_drop"].value < 0
