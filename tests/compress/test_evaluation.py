"""Modules as Predict functions, and metrics that are checked."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.errors import ParityError, TaskError, UsageError
from edgesdk.task import Metric, Predict, Split, Task, output_tensors

CPU = torch.device("cpu")


class Pair(nn.Module):
    """Two inputs and two outputs, and a largest batch that it must never be given more than."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        assert len(x) <= 256
        return self.drop(self.norm(x)) + y, x.sum(1)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 700))
def test_predict_splits_and_joins_any_batch(count: int) -> None:
    x, y = torch.randn(count, 3), torch.randn(count, 3)
    outputs = output_tensors(model_predict(Pair(), CPU)(x, y))
    assert torch.allclose(outputs[0], x / math.sqrt(1 + 1e-5) + y, atol=1e-6)
    assert torch.equal(outputs[1], x.sum(1))
    assert not outputs[0].requires_grad


def test_predict_is_of_the_module_as_it_was_and_leaves_it_alone() -> None:
    model = nn.Linear(2, 2).train()
    predict = model_predict(model, CPU)
    x = torch.ones(1, 2)
    before = output_tensors(predict(x))[0]
    model.weight.data.zero_()
    assert isinstance(predict(x), Tensor)
    assert torch.equal(output_tensors(predict(x))[0], before)
    assert model.training


def test_predict_refuses_unequal_batches() -> None:
    with pytest.raises(TaskError, match=r"\[\[2, 3\], \[3, 3\]\]"):
        model_predict(Pair(), CPU)(torch.zeros(2, 3), torch.zeros(3, 3))


def scored(returned: object, metric: Metric | None = None) -> float:
    def evaluate(predict: Predict, split: Split) -> float:
        assert split == "test"
        predict(torch.zeros(2, 3))
        if isinstance(returned, Exception):
            raise returned
        return returned  # type: ignore[return-value]

    model = nn.Linear(3, 1)
    task = Task(
        name="t",
        model=model,
        example_inputs=(torch.zeros(1, 3),),
        evaluate=evaluate,
        metric=metric or Metric(),
    )
    return evaluate_task(task, model_predict(model, CPU), "test")


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), torch.tensor(0.5), 1 + 1e-12])
def test_numbers_of_any_kind_are_scores(value: object) -> None:
    assert scored(value) == float(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "returned a NoneType"),
        ("0.9", "returned a str"),
        (True, "returned a bool"),
        (torch.ones(2), "returned a Tensor"),
        (math.nan, "returned nan"),
        (93.5, r"returned 93\.5.*accuracy between 0 and 1"),
        (-0.1, r"returned -0\.1"),
        (ZeroDivisionError("by zero"), r"evaluate\(predict, 'test'\) raised ZeroDivisionError"),
    ],
)
def test_anything_else_is_a_task_error(value: object, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        scored(value)


def test_a_metric_may_have_another_range() -> None:
    assert scored(93.5, Metric(name="percent", low=0, high=100)) == 93.5


def test_an_error_of_ours_inside_predict_stays_what_it_is() -> None:
    with pytest.raises(ParityError, match="worker"):
        scored(ParityError("the worker ended"))


def test_a_task_without_evaluate_is_a_usage_error() -> None:
    task = Task(name="t", model=nn.Identity(), example_inputs=(torch.zeros(1, 3),))
    with pytest.raises(UsageError, match="has no evaluate"):
        evaluate_task(task, model_predict(task.model, CPU), "test")
