"""What reading the ``.onnx`` back proves or disproves about it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from edgesdk.artifact import Check
from edgesdk.compressed import CompressedModel
from edgesdk.scheme import Scheme
from edgesdk.target import Emission
from edgesdk_onnx.file import ModelFile, Node
from edgesdk_onnx.placement import RECURRENT
from edgesdk_onnx.reference import Layer, weighted_layers
from edgesdk_onnx.tensorrt import MINIMUM_VERSION, OPERATORS, OPSET

_DTYPE: dict[Scheme, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
_NAMED_AT_MOST = 5
# Folding a batch norm multiplies a few float32 numbers, in an order that is the exporter's.
_FOLDING = 1e-5
_HALF_ULP_FLOAT16 = 2.0**-11
_HALF_SUBNORMAL_FLOAT16 = 2.0**-25
_MATRIX_PRODUCTS = ("MatMul", "Gemm")


def check_file(file: ModelFile, emission: Emission, model: CompressedModel) -> tuple[Check, ...]:
    """Return the checks of a file against the model it was emitted from."""
    return (
        _check_tensors(file, emission),
        _check_weights(file, model),
        _check_precision(file, emission, model.scheme),
        _check_tensorrt(file),
    )


def _check_tensors(file: ModelFile, emission: Emission) -> Check:
    """The file takes and returns the names, shapes and types that the emission states."""
    stated = [(s.name, s.shape, s.dtype) for s in (*emission.inputs, *emission.outputs)]
    found = [(t.name, t.shape, t.dtype) for t in (*file.inputs, *file.outputs)]
    text = ", ".join(f"{name} {list(shape)} {dtype}" for name, shape, dtype in found)
    return Check(
        name="inputs and outputs",
        passed=found == stated,
        detail=f"the file has {text}" + ("" if found == stated else f", stated are {stated}"),
    )


def _check_weights(file: ModelFile, model: CompressedModel) -> Check:
    """Every convolution and linear layer's weight is in the file and decodes to the model's."""
    layers = weighted_layers(model)
    left = [node for node in file.nodes if node.weight is not None and node.op not in RECURRENT]
    total = len(left)
    missing, computed = [], 0
    matched: set[str] = set()
    for layer in layers:
        if not layer.candidates:
            computed += 1
            continue
        match = next((node for node in left if _holds(node, layer, model.scheme)), None)
        if match is not None:
            left.remove(match)
            matched.add(layer.name)
        elif layer.name not in matched:  # two uses on the same input are one in the file
            missing.append(layer.name)
    detail = f"{total - len(left)} of {len(layers)} layers decode to the model's weights"
    if computed:
        detail += f"; {computed} hold what the model computes from its weights, not compared"
    if missing:
        detail += f"; the weights of {_first(missing)} are not in the file"
    return Check(name="weights", passed=not missing, detail=detail)


def _holds(node: Node, layer: Layer, scheme: Scheme) -> bool:
    assert node.weight is not None
    stored = torch.from_numpy(node.weight.values)
    if node.transposed and stored.dim() == 2:
        stored = stored.T
    step = node.weight.step
    steps = None if step is None else torch.from_numpy(np.ascontiguousarray(step))
    if steps is not None and node.transposed and steps.dim() == 2:
        steps = steps.T
    return any(
        stored.shape == weight.shape
        and _close(stored, weight, steps, scheme)
        and (node.bias is None or _close_bias(torch.from_numpy(node.bias), bias))
        for weight, bias in layer.candidates
    )


def _close(stored: Tensor, weight: Tensor, steps: Tensor | None, scheme: Scheme) -> bool:
    """Return whether a stored weight is the model's: exact, rounded to half or to half a step."""
    tolerance = weight.abs() * _FOLDING + 1e-9
    if steps is not None:
        tolerance = tolerance + steps * (0.5 + _FOLDING)
    if scheme == "fp16":
        tolerance = tolerance + weight.abs() * _HALF_ULP_FLOAT16 + _HALF_SUBNORMAL_FLOAT16
    return bool(((stored - weight).abs() <= tolerance).all())


def _close_bias(stored: Tensor, bias: Tensor | None) -> bool:
    wanted = torch.zeros_like(stored) if bias is None else bias
    if wanted.shape != stored.shape:
        return False
    # A folded bias is a difference: its error is relative to its terms, not to itself.
    tolerance = wanted.abs().max() * 2.0**-10 + 1e-6
    return bool(((stored - wanted).abs() <= tolerance).all())


def _check_precision(file: ModelFile, emission: Emission, scheme: Scheme) -> Check:
    """Every convolution and linear layer computes in the scheme's type, with weights in it."""
    wanted = _DTYPE[scheme]
    weighted = [node for node in file.nodes if node.weight is not None]
    wrong = [node for node in weighted if node.precision != wanted]
    detail = f"{len(weighted) - len(wrong)} of {len(weighted)} convolutions and linear layers "
    detail += f"compute in {wanted} with {wanted} weights"
    if wrong:
        detail += f"; not so {_listed(wrong, emission)}"
    if scheme == "int8":
        products = [n for n in file.nodes if n.op in _MATRIX_PRODUCTS and n.weight is None]
        rest = sum(n.dtype.startswith("float") and "->" not in n.dtype for n in file.nodes)
        detail += f"; {rest} operators stay in float"
        detail += f", {len(products)} products of two activations among them" if products else ""
    nothing = scheme == "int8" and not weighted
    return Check(name="precision", passed=not wrong and not nothing, detail=detail)


def _check_tensorrt(file: ModelFile) -> Check:
    """The file keeps to what TensorRT's parser and its explicit quantization take."""
    unknown = sorted({node.op for node in file.nodes} - OPERATORS)
    problems = [f"operator {op} is not read by TensorRT" for op in unknown]
    problems += list(file.defects)
    if file.opset != OPSET:
        problems.append(f"opset {file.opset} instead of {OPSET}")
    minimum = ".".join(map(str, MINIMUM_VERSION))
    detail = f"opset {file.opset}, IR {file.ir_version}, operators of TensorRT {minimum}, "
    detail += "zero points 0; read, not built"
    return Check(
        name="TensorRT's rules",
        passed=not problems,
        detail=_first(problems, "; ") if problems else detail,
    )


def _listed(nodes: Iterable[Node], emission: Emission) -> str:
    return _first(
        [
            f"{emission.layer_of.get(n.name, 'the model itself')} ({n.op}, {n.precision})"
            for n in nodes
        ]
    )


def _first(texts: list[str], separator: str = ", ") -> str:
    more = len(texts) - _NAMED_AT_MOST
    return separator.join(texts[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
