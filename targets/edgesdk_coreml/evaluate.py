"""An evaluator: what a saved package computes, as its program says, in PyTorch on the CPU.

It interprets graph and weights and is not Core ML: each operation is computed in float32 and its
result rounded to the type the program declares, which bounds but does not reproduce the Neural
Engine's arithmetic. A figure that rests on it is "interpreted", never "verified".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgesdk.errors import ArtifactError, UnsupportedModel, UsageError
from edgesdk.target import Arrays
from edgesdk_coreml.blobs import PACKED_BITS
from edgesdk_coreml.elementwise import ELEMENTWISE
from edgesdk_coreml.layers import LAYERS
from edgesdk_coreml.package import Constant, Operation, Program, Reference, Value, read_program
from edgesdk_coreml.quantization import QUANTIZATION
from edgesdk_coreml.shapes import SHAPES

OPERATIONS: Mapping[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    **ELEMENTWISE,
    **LAYERS,
    **QUANTIZATION,
    **SHAPES,
}

# MIL takes these as lists even where they hold one value.
_LIST_ARGUMENTS = frozenset({"values"})
_LISTED = (np.int32, np.uint32, np.bool_)


def load_program(package: Path) -> Callable[[Arrays], Arrays]:
    """Return a function that computes a saved ``.mlpackage``: its inputs in, its outputs out.

    Arrays have the package's shapes and types, in its order of inputs and outputs. Raises
    ``ArtifactError`` for a damaged package and ``UnsupportedModel`` naming an operation that the
    evaluator does not know; the function raises ``UsageError`` for arrays of another shape.
    """
    return evaluator(read_program(package))


def evaluator(program: Program) -> Callable[[Arrays], Arrays]:
    """Return a function that computes a program, as ``load_program`` does."""
    constants = constant_values(program)
    _check_features(program)
    remaining = [op for op in program.operations if not op.kind.startswith("constexpr_")]

    def run(inputs: Arrays) -> Arrays:
        values = constants | _feed(program, inputs)
        with torch.inference_mode():
            for op in remaining:
                values |= _compute(op, values)
        return [
            torch.as_tensor(values[feature.name]).numpy().astype(feature.dtype)
            for feature in program.output_features
        ]

    return run


def _check_features(program: Program) -> None:
    """Raise ``ArtifactError`` unless the program has the inputs and outputs the package states."""
    inputs = {value.name for value in program.inputs}
    unmatched = inputs ^ {feature.name for feature in program.input_features}
    unmatched |= set(program.outputs) ^ {feature.name for feature in program.output_features}
    if unmatched:
        raise ArtifactError(
            f"the package and its program disagree on the inputs and outputs "
            f"{', '.join(sorted(unmatched))}"
        )


def constant_values(program: Program) -> dict[str, Any]:
    """Return every constant by name, stored weights decoded as the program says.

    Raises ``UnsupportedModel`` as ``refuse_unknown`` does.
    """
    refuse_unknown(program.operations)
    values = {name: _operand(constant) for name, constant in program.constants.items()}
    for op in program.operations:
        if op.kind.startswith("constexpr_"):
            values |= _compute(op, values)
    return values


def refuse_unknown(operations: Iterable[Operation]) -> None:
    """Raise ``UnsupportedModel`` for the first operation that the evaluator cannot compute."""
    for op in operations:
        known = OPERATIONS.get(op.kind)
        if known is None:
            raise UnsupportedModel(
                f"the Core ML operation {op.kind!r} ({op.name}) cannot be evaluated here",
                expected=f"one of {', '.join(sorted(OPERATIONS))}",
            )
        extra = set(op.arguments) - set(inspect.signature(known).parameters)
        if extra:
            raise UnsupportedModel(
                f"the Core ML operation {op.kind!r} ({op.name}) has the argument "
                f"{', '.join(sorted(extra))}, which the evaluator does not know"
            )


def _compute(op: Operation, values: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {name: _argument(name, op, values) for name in op.arguments}
    try:
        results = OPERATIONS[op.kind](**arguments)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as problem:
        raise ArtifactError(
            f"{op.kind} ({op.name}) cannot be computed as the file states it: {problem}"
        ) from problem
    tensors = results if isinstance(results, tuple) else (results,)
    if len(tensors) != len(op.outputs):
        raise ArtifactError(
            f"{op.kind} ({op.name}) does not give the {len(op.outputs)} it declares"
        )
    return {
        declared.name: _rounded(tensor, declared, op)
        for declared, tensor in zip(op.outputs, tensors, strict=True)
    }


def _argument(parameter: str, op: Operation, values: Mapping[str, Any]) -> Any:
    resolved = []
    for binding in op.arguments[parameter]:
        known = values.get(binding.name) if isinstance(binding, Reference) else _operand(binding)
        if known is None:
            raise ArtifactError(f"{op.kind} ({op.name}) decodes a weight that is computed")
        resolved.append(known)
    if parameter in _LIST_ARGUMENTS:
        return resolved
    if len(resolved) != 1:
        raise ArtifactError(f"{op.kind} ({op.name}) has {len(resolved)} values for {parameter!r}")
    return resolved[0]


def _rounded(tensor: Tensor, declared: Value, op: Operation) -> Tensor:
    if tuple(tensor.shape) != declared.shape:
        raise ArtifactError(
            f"{op.kind} ({op.name}) gives the shape {list(tensor.shape)} and declares "
            f"{list(declared.shape)}"
        )
    # PyTorch has no arithmetic of types that share bytes; their values are in one of their own.
    dtype = torch.uint8 if declared.dtype in PACKED_BITS else getattr(torch, declared.dtype)
    rounded = tensor.to(dtype)
    return rounded.float() if dtype.is_floating_point else rounded


def _operand(constant: Constant) -> Any:
    """Return a constant as operations take it: floats as float32, small integers as Python's."""
    if isinstance(constant, str):
        return constant
    if constant.ndim == 0 or (constant.ndim == 1 and constant.dtype in _LISTED):
        return constant.tolist()
    tensor = torch.from_numpy(constant.copy())
    return tensor.float() if tensor.is_floating_point() else tensor


def _feed(program: Program, inputs: Arrays) -> dict[str, Tensor]:
    features = program.input_features
    found = [(array.dtype.name, array.shape) for array in inputs]
    expected = [(feature.dtype, feature.shape) for feature in features]
    if found != expected:
        raise UsageError(f"the package was given {found}", expected=f"{expected}")
    return {
        feature.name: torch.from_numpy(np.ascontiguousarray(array))
        for feature, array in zip(features, inputs, strict=True)
    }
