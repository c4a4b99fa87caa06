"""Inputs to look at a network with: how many, and how many at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgesdk.compress.samples import SAMPLES, sample_inputs
from edgesdk.task import OutputSpec, Task, Tensors

Forward = Callable[[Tensor], Tensor]


class Model(nn.Module):
    """A layer and what is made of its answer."""

    def __init__(self, then: Forward) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.layer(x))


def task_of(then: Forward, batches: list[Tensors]) -> Task:
    return Task(
        name="t",
        model=Model(then),
        example_inputs=(torch.zeros(1, 3),),
        outputs=(OutputSpec(name="y"),),
        calibration=lambda: batches,
    )


def singles(count: int) -> list[Tensors]:
    return [(row[None],) for row in torch.randn(count, 3)]


def test_samples_that_come_one_by_one_are_put_together() -> None:
    batches = singles(40)
    source, found = sample_inputs(task_of(lambda y: y, batches))
    assert source == "calibration"
    assert [len(inputs[0]) for inputs in found] == [16, 16, 8]
    wanted = torch.cat([inputs[0] for inputs in batches])
    assert torch.equal(torch.cat([inputs[0] for inputs in found]), wanted)


@pytest.mark.parametrize("size", [5, 16, 64])
def test_larger_batches_are_never_cut(size: int) -> None:
    batches: list[Tensors] = [(torch.randn(size, 3),) for _ in range(3)]
    _, found = sample_inputs(task_of(lambda y: y, batches))
    assert sum(len(inputs[0]) for inputs in found) == 3 * size
    assert max(len(inputs[0]) for inputs in found) == max(15 // size * size, size)


def one_at_a_time(y: Tensor) -> Tensor:
    return y.view(1, 2)


def across_the_batch(y: Tensor) -> Tensor:
    return y - y.mean(0, keepdim=True)


def first_alone(y: Tensor) -> Tensor:
    return y[:1]


@pytest.mark.parametrize("then", [one_at_a_time, across_the_batch, first_alone])
def test_a_model_that_answers_otherwise_together_gets_them_as_they_are(then: Forward) -> None:
    batches = singles(20)
    _, found = sample_inputs(task_of(then, batches))
    assert found == batches


def test_no_more_are_taken_than_are_looked_at() -> None:
    _, found = sample_inputs(task_of(lambda y: y, singles(SAMPLES + 50)))
    assert sum(len(inputs[0]) for inputs in found) == SAMPLES


def test_without_data_the_examples_are_what_there_is() -> None:
    task = Task(name="t", model=Model(lambda y: y), example_inputs=(torch.ones(1, 3),))
    source, found = sample_inputs(task)
    assert source == "example"
    assert found == [task.example_inputs]


def test_large_samples_stay_alone() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    images: list[Tensors] = [(torch.randn(1, 3, 1024, 1024),) for _ in range(3)]
    task = Task(name="t", model=Mean(), example_inputs=images[0], calibration=lambda: images)
    assert [len(inputs[0]) for inputs in sample_inputs(task)[1]] == [1, 1, 1]
    smaller: list[Tensors] = [(image[:, :, :512],) for (image,) in images]
    task = Task(name="t", model=Mean(), example_inputs=smaller[0], calibration=lambda: smaller)
    assert [len(inputs[0]) for inputs in sample_inputs(task)[1]] == [2, 1]
