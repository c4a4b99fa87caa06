"""Specs and data that do not fit a task, and the message for each way they can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from linear_task import linear_task
from torch import Tensor, nn

from edgesdk.errors import TaskError
from edgesdk.task import Batch, InputSpec, OutputSpec, Task, Tensors
from edgesdk.task_check import (
    calibration_batches,
    check_task,
    input_specs,
    output_specs,
    training_batches,
)


@pytest.fixture
def task() -> Task:
    return linear_task(version="1")


def test_default_names(task: Task) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensors:
            return x + y, x - y

    assert input_specs(task) == (InputSpec(name="input"),)
    assert output_specs(task) == (OutputSpec(name="output"),)
    two = replace(task, model=Two(), example_inputs=(torch.zeros(1, 3), torch.zeros(1, 3)))
    assert [spec.name for spec in input_specs(two)] == ["input_0", "input_1"]
    assert [spec.name for spec in output_specs(two)] == ["output_0", "output_1"]


def test_specs_that_do_not_fit(task: Task) -> None:
    pair = (InputSpec(name="a"), InputSpec(name="b"))
    with pytest.raises(TaskError, match=r"gives inputs named \['a', 'b'\], and the model has 1"):
        input_specs(replace(task, inputs=pair))
    outputs = (OutputSpec(name="a"), OutputSpec(name="a"))
    with pytest.raises(TaskError, match="gives outputs named"):
        output_specs(replace(task, outputs=outputs))
    labelled = (OutputSpec(name="a", kind="logits", labels=("x", "y", "z")),)
    with pytest.raises(TaskError, match=r"3 labels and the shape \[1, 2\]"):
        output_specs(replace(task, outputs=labelled))


def items(*values: object) -> Callable[[], Iterator[object]]:
    """Yield the values, then fail: a check must not consume more than the first."""

    def source() -> Iterator[object]:
        yield from values
        raise AssertionError("more than the first item was taken")

    return source


X, Y = torch.zeros(5, 3), torch.zeros(5).long()


def test_a_sound_task_passes_on_its_first_batches(task: Task) -> None:
    batch = Batch(inputs=(X,), targets=Y)
    check_task(replace(task, calibration=items((X,)), training=items(batch)))  # type: ignore[arg-type]
    check_task(task)
    assert list(calibration_batches(task)) == list(training_batches(task)) == []


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ((torch.zeros(1, 4),), r"sample 0 has the inputs \[1, 4\].*\[N, 3\] torch\.float32"),
        ((X, X), r"has the inputs \[5, 3\] torch\.float32, \[5, 3\]"),
        ((), "has the inputs none"),
        ((X.double(),), "float64"),
        ((torch.tensor(1.0),), r"has the inputs \[\]"),
        (X, r"inputs of type Tensor.*a tuple of tensors"),
        ((X.numpy(),), "inputs of type tuple"),
        ((X / 0,), "sample 0 contains NaN"),
    ],
)
def test_calibration_that_does_not_fit(task: Task, sample: object, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check_task(replace(task, calibration=items(sample)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, Y), r"training batch 0 is a tuple.*Batch\(inputs="),
        (Batch(inputs=(X[:, :2],), targets=Y), r"\[5, 2\]"),
        (Batch(inputs=(X,), targets=Y[:4]), r"has 5 samples and targets of \[4\]"),
        (Batch(inputs=(X,), targets=torch.tensor(1)), r"targets of \[\]"),
        (Batch(inputs=(X,), targets=[1]), "targets of list"),  # type: ignore[arg-type]
        (Batch(inputs=(X,), targets=Y / 0), "training batch 0 contains NaN"),
    ],
)
def test_training_that_does_not_fit(task: Task, batch: object, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check_task(replace(task, training=items(batch)))  # type: ignore[arg-type]


def test_data_that_raises_is_empty_or_cannot_be_iterated(task: Task) -> None:
    def broken() -> Iterator[Tensors]:
        raise FileNotFoundError("photos.npz")
        yield

    with pytest.raises(TaskError, match=r"calibration\(\) raised FileNotFoundError: photos"):
        check_task(replace(task, calibration=broken))
    with pytest.raises(TaskError, match=r"training\(\) yielded nothing"):
        check_task(replace(task, training=lambda: []))
    with pytest.raises(TaskError, match=r"training\(\) raised TypeError"):
        check_task(replace(task, training=lambda: None))  # type: ignore[arg-type, return-value]


class Returns(nn.Module):
    """A model that gives what it is told to, computed from its input."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: {"logits": x}, "returned a dict.*wrap the model"),
        (lambda x: (x, None), "returned a tuple"),
        (lambda x: x.sum(), r"returned the shape \[\] for a batch of 1"),
        (lambda x: torch.cat([x, x]), r"returned the shape \[2, 3\] for a batch of 1"),
        (lambda x: x / 0, "returned NaN or infinity"),
        (lambda x: x @ x, "the model on its example inputs raised RuntimeError"),
    ],
)
def test_a_model_whose_outputs_cannot_be_used(
    task: Task, function: Callable[[Tensor], object], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        check_task(replace(task, model=Returns(function)))
