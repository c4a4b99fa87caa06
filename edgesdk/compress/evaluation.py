"""Scoring a model: modules as ``Predict`` functions, and the task's own metric, checked."""

from __future__ import annotations

import copy
import math
import numbers

import torch
from torch import Tensor, nn

from edgesdk.errors import TaskError, UsageError
from edgesdk.task import Predict, Split, Task, Tensors, output_tensors
from edgesdk.user_code import user_code

# Large enough to keep two cores busy, small enough for the activations of a phone-sized network.
_SAMPLES_AT_ONCE = 128


def model_predict(module: nn.Module, device: torch.device) -> Predict:
    """Return a function that runs a copy of the module as it is now, in eval mode, on the device.

    It takes inputs ``[N, ...]`` with any N, splits them, and returns outputs on the CPU: a tensor,
    or a tuple where the module returns several. Raises ``TaskError`` for inputs of unequal N.
    """
    model = copy.deepcopy(module).to(device).eval()

    def predict(*inputs: Tensor) -> Tensor | Tensors:
        if len({len(tensor) for tensor in inputs}) != 1:
            shapes = [list(tensor.shape) for tensor in inputs]
            raise TaskError(
                f"predict was called with inputs of the shapes {shapes}",
                expected="one tensor per input of the model, all with the same first dimension",
            )
        pieces = zip(*(torch.split(tensor, _SAMPLES_AT_ONCE) for tensor in inputs), strict=True)
        with torch.no_grad():
            outputs = [model(*(tensor.to(device) for tensor in piece)) for piece in pieces]
        parts = [[part.cpu() for part in output_tensors(output)] for output in outputs]
        joined = tuple(torch.cat(list(part)) for part in zip(*parts, strict=True))
        return joined[0] if isinstance(outputs[0], Tensor) else joined

    return predict


def evaluate_task(task: Task, predict: Predict, split: Split) -> float:
    """Return the task's metric of ``predict`` on a split.

    Raises ``UsageError`` for a task without ``evaluate``, ``TaskError`` when it raises or returns
    anything but a number within the metric's range.
    """
    if task.evaluate is None:
        raise UsageError(
            f"task {task.name!r} has no evaluate, so accuracy cannot be measured",
            next_step="give the Task evaluate=..., a function of (predict, split)",
        )
    what = f"task {task.name!r}: evaluate(predict, {split!r})"
    with user_code(what):
        returned: object = task.evaluate(predict, split)
    if isinstance(returned, Tensor) and returned.numel() == 1:
        returned = returned.item()
    metric = task.metric
    expected = f"{metric.name} between {metric.low:g} and {metric.high:g}, higher is better"
    if not isinstance(returned, numbers.Real) or isinstance(returned, bool):
        raise TaskError(f"{what} returned a {type(returned).__name__}", expected=expected)
    score = float(returned)
    slack = 1e-9 * (metric.high - metric.low)  # a mean of floats may miss its bound by an ulp
    if not math.isfinite(score) or not metric.low - slack <= score <= metric.high + slack:
        raise TaskError(
            f"{what} returned {score}",
            expected=expected,
            next_step="a metric with another range is declared by Task(metric=Metric(...))",
        )
    return score
