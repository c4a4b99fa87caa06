"""A module as a program of ``torch.export``, or the layer and line where that is not possible."""

from __future__ import annotations

import contextlib
import copy
import io
import linecache
import logging
import traceback
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from edgesdk.errors import TaskError, UnsupportedModel
from edgesdk.in_place import find_change
from edgesdk.task import Tensors


def export_model(module: nn.Module, example_inputs: Tensors) -> ExportedProgram:
    """Return the module in eval mode as an ``ExportedProgram``; the module itself stays as it is.

    Raises ``TaskError`` when the model's own ``forward`` fails on the example inputs and
    ``UnsupportedModel`` when ``torch.export`` cannot follow it; both name the layer and the line.
    """
    try:
        model = copy.deepcopy(module).eval()
        example_inputs = tuple(example.contiguous() for example in example_inputs)
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.contiguous()  # channels last is no property of a file
    except Exception as problem:
        raise UnsupportedModel(
            f"the model cannot be copied: {_summary(problem)}",
            next_step="keep no tensors with a gradient history as attributes of a module",
        ) from problem
    names = {id(layer): name for name, layer in model.named_modules()}
    shapes = ", ".join(str(list(example.shape)) for example in example_inputs)
    try:
        with torch.no_grad(), _export_settings():
            outputs = model(*example_inputs)
    except Exception as problem:
        raise TaskError(
            f"the model's forward raised {_summary(problem)}{_place(problem, names)}",
            expected=f"a model that runs on the task's example inputs, of shapes {shapes}",
        ) from problem
    several = outputs if isinstance(outputs, tuple | list) else (outputs,)
    if not several or not all(isinstance(output, Tensor) for output in several):
        raise TaskError(
            f"the model returns {type(outputs).__name__}, not only tensors",
            expected="a tensor or a tuple of tensors",
            next_step="wrap it in a module whose forward returns the tensors that are used",
        )
    try:
        with _export_settings():
            program = torch.export.export(model, example_inputs)
    except Exception as problem:
        raise _export_problem(problem, names) from problem
    _refuse_changes(program)
    return program


def _refuse_changes(program: ExportedProgram) -> None:
    """Raise ``UnsupportedModel`` where forward writes to a buffer or to one of its inputs."""
    change = find_change(program)
    if change is not None:
        node, what = change
        raise UnsupportedModel(
            f"forward writes to the model's {what} in{origin_of(node)}",
            expected="a forward that only computes its outputs, the same for the same inputs",
            next_step="compute a new tensor there, and pass what has to be remembered as an "
            "input and an output",
        )


def layer_of(node: fx.Node) -> str:
    """Return the path of the module that a node was exported from, empty where none is known."""
    stack = node.meta.get("nn_module_stack") or {}
    return str([path for path, _ in stack.values()][-1]) if stack else ""


def origin_of(node: fx.Node) -> str:
    """Return " layer ..., source line" for a node of an exported graph."""
    lines = str(node.meta.get("stack_trace") or "").strip().splitlines()
    return f" layer {layer_of(node) or '(the model)'}, " + ": ".join(s.strip() for s in lines[-2:])


def _export_problem(problem: Exception, names: Mapping[int, str]) -> UnsupportedModel:
    cause, step = _summary(problem), "write that line with operations that torch.export supports"
    if "data-dependent" in str(problem) or "DataDependent" in cause:
        cause = f"data-dependent control flow ({type(problem).__name__})"
        step = "choose with torch.where instead of a Python branch, or decide outside of forward"
    return UnsupportedModel(
        f"torch.export cannot follow the model: {cause}{_place(problem, names)}",
        expected="tensor operations whose order does not depend on the tensors' values",
        next_step=step,
    )


def _summary(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0].rstrip('.')}" if lines else type(problem).__name__


def _place(problem: Exception, names: Mapping[int, str]) -> str:
    """Return " in layer ..., file:line: source" for the innermost frame of a layer's own code."""
    place = ""
    for frame, line in traceback.walk_tb(problem.__traceback__):
        path, arguments = frame.f_code.co_filename, frame.f_code.co_varnames
        layer = frame.f_locals.get(arguments[0]) if arguments else None
        if id(layer) in names and frame.f_code.co_name not in ("_call_impl", "_wrapped_call_impl"):
            place = f" in layer {names[id(layer)] or '(the model)'} ({type(layer).__name__})"
            place += f", {path}:{line}: {linecache.getline(path, line).strip()}"
    return place


@contextlib.contextmanager
def _export_settings() -> Iterator[None]:
    """Keep torch from printing whole graphs, and from fusing an encoder layer into one operator."""
    logger, fast = logging.getLogger("torch"), torch.backends.mha.get_fastpath_enabled()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)
