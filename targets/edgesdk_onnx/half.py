"""fp16: a float32 graph computed in float16, with float32 inputs and outputs."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from edgesdk.compress.pt2e import calibration_batches
from edgesdk.compressed import CompressedModel
from edgesdk.errors import UnsupportedModel
from edgesdk.task import Tensors
from edgesdk_onnx.quantize import with_outputs
from edgesdk_onnx.ranges import largest_magnitudes

LARGEST = 65504.0
_MASK = 1e30  # a value this far from zero stands for infinity, as in an attention mask
_SAMPLES = 64
# Inputs that ONNX wants in float32 whatever the operator computes in: Resize's region and scales.
_FLOAT32_INPUTS = {"Resize": (1, 2)}


def convert_to_half(proto: Any, model: CompressedModel, layer_of: dict[str, str]) -> None:
    """Turn a float32 graph into a float16 one, in place.

    Given:   x float32 -> Conv(x, W float32) -> y float32
    Result:  x float32 -> Cast -> Conv(x, W float16) -> Cast -> y float32

    Constants beyond float16's range, such as the infinities of a mask, become its largest value.
    ``UnsupportedModel`` names the layer whose values grow beyond that range on the task's own
    inputs: ONNX Runtime computes wider here and would not show what the device makes of them.
    """
    from onnx import TensorProto

    overflow = find_overflow(proto, model, layer_of)
    if overflow is not None:
        raise UnsupportedModel(
            f"{overflow}, beyond float16's {LARGEST:.0f}",
            expected="values that float16 can hold",
            next_step="compile it in fp32 or int8",
        )
    graph = proto.graph
    kept = _float32_constants(graph)
    for tensor in graph.initializer:
        if tensor.name not in kept:
            _halve(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                attribute.i = (
                    TensorProto.FLOAT16 if attribute.i == TensorProto.FLOAT else attribute.i
                )
            if attribute.HasField("t"):
                _halve(attribute.t)
    _cast_boundary(graph)


def _halve(tensor: Any) -> None:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.FLOAT:
        values = np.clip(numpy_helper.to_array(tensor), -LARGEST, LARGEST)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))


def _float32_constants(graph: Any) -> set[str]:
    """Return the constants that stay float32; one that others read too is copied for them."""
    kept: set[str] = set()
    for node in graph.node:
        for position in _FLOAT32_INPUTS.get(node.op_type, ()):
            if position < len(node.input) and node.input[position]:
                kept.add(node.input[position])
    copies = {t.name: t for t in graph.initializer if t.name in kept}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in copies and position not in _FLOAT32_INPUTS.get(node.op_type, ()):
                node.input[position] = f"{name}.half"
                if not any(t.name == f"{name}.half" for t in graph.initializer):
                    copy = graph.initializer.add()
                    copy.CopyFrom(copies[name])
                    copy.name = f"{name}.half"
    return kept


def _cast_boundary(graph: Any) -> None:
    """Cast float32 inputs to float16 in front of the graph, and its results back behind it."""
    from onnx import TensorProto, helper

    nodes = list(graph.node)
    floats = [v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT]
    results = [v.name for v in graph.output if v.type.tensor_type.elem_type == TensorProto.FLOAT]
    renamed = {name: f"{name}.half" for name in (*floats, *results)}
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    casts = [
        helper.make_node("Cast", [n], [f"{n}.half"], name=f"{n}/Cast", to=TensorProto.FLOAT16)
        for n in floats
    ]
    back = [
        helper.make_node("Cast", [f"{n}.half"], [n], name=f"{n}/Cast", to=TensorProto.FLOAT)
        for n in results
    ]
    del graph.node[:]
    graph.node.extend([*casts, *nodes, *back])


def find_overflow(proto: Any, model: CompressedModel, layer_of: dict[str, str]) -> str | None:
    """Return which operator of which layer makes a value that float16 cannot hold, if one does."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    names = _float_tensors(proto, tuple(makers))
    largest = largest_magnitudes(with_outputs(proto, names), names, _samples(model))
    for name in names:
        if LARGEST < largest[name] < _MASK:
            layer = layer_of.get(makers[name].name, "(the model)")
            return f"the {makers[name].op_type} of layer {layer} reaches {largest[name]:.3g}"
    return None


def _float_tensors(proto: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    from onnx import TensorProto, shape_inference

    inferred = shape_inference.infer_shapes(proto, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    return tuple(name for name in names if types.get(name) == TensorProto.FLOAT)


def _samples(model: CompressedModel) -> list[Tensors]:
    if not model.calibration:
        return [model.example_inputs]
    count = max(1, _SAMPLES // model.example_inputs[0].shape[0])
    return list(islice(calibration_batches(model), count))
