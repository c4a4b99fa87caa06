"""What a task gives, checked: its model's outputs and their specs, its batches of data."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from edgesdk.errors import TaskError
from edgesdk.task import Batch, InputSpec, OutputSpec, Task, Tensors, output_tensors
from edgesdk.user_code import user_code

_Item = TypeVar("_Item")


def input_specs(task: Task) -> tuple[InputSpec, ...]:
    """Return one InputSpec per example input; ``input`` or ``input_0``, ... where none is given.

    Raises ``TaskError`` when the task gives another number of specs, or names that repeat.
    """
    if not task.inputs:
        names = _default_names("input", len(task.example_inputs))
        return tuple(InputSpec(name=name) for name in names)
    _check_specs(task, "inputs", [spec.name for spec in task.inputs], len(task.example_inputs))
    return task.inputs


def output_specs(task: Task) -> tuple[OutputSpec, ...]:
    """Return one OutputSpec per output; ``output`` or ``output_0``, ... where none is given.

    Runs the model once on its example inputs. Raises ``TaskError`` when the task gives another
    number of specs, names that repeat, or labels that no dimension of the output has room for.
    """
    outputs = example_outputs(task)
    if not task.outputs:
        names = _default_names("output", len(outputs))
        return tuple(OutputSpec(name=name) for name in names)
    _check_specs(task, "outputs", [spec.name for spec in task.outputs], len(outputs))
    for spec, output in zip(task.outputs, outputs, strict=True):
        if spec.labels and len(spec.labels) not in output.shape[1:]:
            raise TaskError(
                f"task {task.name!r}: output {spec.name!r} has {len(spec.labels)} labels and the "
                f"shape {list(output.shape)}",
                expected="as many labels as the output has classes",
            )
    return task.outputs


def _default_names(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind}_{index}" for index in range(count)]


def _check_specs(task: Task, field: str, names: list[str], count: int) -> None:
    if len(names) != count or len(set(names)) != count or not all(names):
        raise TaskError(
            f"task {task.name!r} gives {field} named {names}, and the model has {count}",
            expected=f"one spec per tensor in {field}, each with a name of its own",
        )


def example_outputs(task: Task) -> Tensors:
    """Return the model's outputs on the example inputs, computed by a copy in eval mode.

    Raises ``TaskError`` if the model raises, or returns anything but finite tensors whose first
    dimension is the batch.
    """
    model = copy.deepcopy(task.model).cpu().eval()
    what = f"task {task.name!r}: the model on its example inputs"
    with torch.no_grad(), user_code(what):
        returned = model(*(example.cpu() for example in task.example_inputs))
    return check_outputs(returned, task.batch_size, what)


def check_outputs(returned: Any, batch_size: int, what: str) -> Tensors:
    """Return a model's outputs as a tuple; ``TaskError`` for what is not ``[N, ...]`` and finite.

    ``what`` begins the message: which model, on what.
    """
    if not isinstance(returned, Tensor) and not (
        isinstance(returned, tuple | list) and all(isinstance(item, Tensor) for item in returned)
    ):
        raise TaskError(
            f"{what} returned a {type(returned).__name__}",
            expected="a tensor or a tuple of tensors",
            next_step="wrap the model in a module whose forward returns tensors",
        )
    outputs = output_tensors(returned if isinstance(returned, Tensor) else tuple(returned))
    for output in outputs:
        if output.dim() == 0 or output.shape[0] != batch_size:
            raise TaskError(
                f"{what} returned the shape {list(output.shape)} for a batch of {batch_size}",
                expected="outputs whose first dimension is the batch",
            )
        if not _is_finite(output):
            raise TaskError(f"{what} returned NaN or infinity", expected="finite outputs")
    return outputs


def calibration_batches(task: Task) -> Iterator[Tensors]:
    """Yield the task's calibration inputs, each tuple checked; none where the task has none.

    Raises ``TaskError`` for a tuple of the wrong count, shape or type, for values that are not
    finite, and for whatever ``calibration`` raises.
    """
    for index, inputs in enumerate(_items(task, "calibration")):
        what = f"task {task.name!r}: calibration sample {index}"
        checked = _check_inputs(task, inputs, what)
        if not all(_is_finite(tensor) for tensor in checked):
            raise TaskError(f"{what} contains NaN or infinity", expected="finite inputs")
        yield checked


def training_batches(task: Task) -> Iterator[Batch]:
    """Yield one epoch of the task's training batches, each checked; none where the task has none.

    Raises ``TaskError`` for anything that is not a ``Batch`` of the right count, shapes and types,
    and for whatever ``training`` raises.
    """
    for index, batch in enumerate(_items(task, "training")):
        what = f"task {task.name!r}: training batch {index}"
        if not isinstance(batch, Batch):
            raise TaskError(
                f"{what} is a {type(batch).__name__}",
                expected="edgesdk.task.Batch(inputs=(x,), targets=y)",
            )
        inputs = _check_inputs(task, batch.inputs, what)
        targets = batch.targets
        if targets is not None and (
            not isinstance(targets, Tensor) or targets.shape[:1] != inputs[0].shape[:1]
        ):
            shape = list(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise TaskError(
                f"{what} has {inputs[0].shape[0]} samples and targets of {shape}",
                expected="a tensor of targets whose first dimension is the batch",
            )
        yield Batch(inputs=inputs, targets=targets)


def check_task(task: Task) -> None:
    """Raise ``TaskError`` for what would go wrong later: outputs, specs, the first data batches.

    Runs the model once and takes only the first item of ``calibration`` and ``training``.
    """
    _check_floats(task)
    input_specs(task)
    output_specs(task)
    if task.calibration is not None:
        _first(calibration_batches(task), f"task {task.name!r}: calibration()")
    if task.training is not None:
        batch = _first(training_batches(task), f"task {task.name!r}: training()")
        check_finite(batch, f"task {task.name!r}: training batch 0")


def _check_floats(task: Task) -> None:
    """Raise ``TaskError`` for weights and inputs of 16 bits: files are derived from float32."""
    weights = [*task.model.named_parameters(), *task.model.named_buffers()]
    inputs = [
        (f"example input {place}", tensor) for place, tensor in enumerate(task.example_inputs)
    ]
    halves = [
        (name, t) for name, t in (*weights, *inputs) if t.dtype in (torch.float16, torch.bfloat16)
    ]
    if halves:
        name, tensor = halves[0]
        more = f" and {len(halves) - 1} more" if len(halves) > 1 else ""
        raise TaskError(
            f"task {task.name!r}: {name}{more} of type {tensor.dtype}",
            expected="float32; what the file computes in is decided for the device",
            next_step="use model.float() and float32 inputs in the task",
        )


def check_finite(batch: Batch, what: str) -> None:
    """Raise ``TaskError``, beginning with ``what``, if a training batch holds NaN or infinity."""
    targets = () if batch.targets is None else (batch.targets,)
    if not all(_is_finite(tensor) for tensor in (*batch.inputs, *targets)):
        raise TaskError(f"{what} contains NaN or infinity", expected="finite inputs and targets")


def _first(items: Iterator[_Item], what: str) -> _Item:
    for item in items:
        return item
    expected = "a new iterable with at least one item at every call"
    raise TaskError(f"{what} yielded nothing", expected=expected)


def _items(task: Task, field: str) -> Iterator[Any]:
    """Yield what ``task.calibration()`` or ``task.training()`` yields, its errors as TaskErrors."""
    what = f"task {task.name!r}: {field}()"
    source = getattr(task, field)
    if source is None:
        return
    with user_code(what):
        iterator = iter(source())
    end = object()
    while True:
        with user_code(what):
            item = next(iterator, end)
        if item is end:
            return
        yield item


def _check_inputs(task: Task, inputs: Any, what: str) -> Tensors:
    expected = [(list(t.shape[1:]), t.dtype) for t in task.example_inputs]
    wanted = ", ".join(f"{['N', *shape]} {dtype}" for shape, dtype in expected).replace("'N'", "N")
    if not isinstance(inputs, tuple | list) or not all(isinstance(t, Tensor) for t in inputs):
        raise TaskError(
            f"{what} has inputs of type {type(inputs).__name__}",
            expected=f"a tuple of tensors like the example inputs: {wanted}",
        )
    found = [(list(tensor.shape[1:]), tensor.dtype) for tensor in inputs]
    batches = {tuple(tensor.shape[:1]) for tensor in inputs}
    if found != expected or len(batches) != 1 or () in batches:
        shapes = ", ".join(f"{list(tensor.shape)} {tensor.dtype}" for tensor in inputs)
        raise TaskError(
            f"{what} has the inputs {shapes or 'none'}",
            expected=f"tensors like the example inputs, of any batch size N: {wanted}",
        )
    return tuple(inputs)


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
