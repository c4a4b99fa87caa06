"""int8: a float graph with quantize/dequantize nodes where TensorRT wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.compress.pt2e import calibration_batches
from edgesdk.compressed import CompressedModel
from edgesdk.errors import UnsupportedModel
from edgesdk_onnx.placement import RECURRENT, WEIGHTED, Placement, Weight, place
from edgesdk_onnx.ranges import find_ranges

_STEPS = 127


def quantize_int8(proto: Any, model: CompressedModel, layer_of: dict[str, str]) -> None:
    """Quantize a float graph in place: int8 weights, int8 inputs of what TensorRT computes so.

    Given:   y = Conv(x, W, b)                     x float, W a float constant
    Result:  y = Conv(DQ(Q(x)), DQ(W8), b)         W8 int8, a scale per output channel

    Everything is symmetric, with a zero point of 0, as TensorRT requires it; biases stay float, and
    TensorRT adds them to the int32 sums. Where that pays is decided in ``placement``.

    Raises ``UnsupportedModel`` naming the layer where weights could not be quantized, and
    ``TaskError`` for calibration data that is missing or of the wrong shape.
    """
    constants = _float_constants(proto.graph)
    _refuse_float_layers(proto.graph, constants, layer_of)
    placement = place(proto.graph, {name: array.ndim for name, array in constants.items()})
    if not placement.weights:
        raise UnsupportedModel(
            "the model has no convolution or linear layer, so there is nothing to quantize",
            next_step="compile it in a float precision",
        )
    names = tuple(
        dict.fromkeys(proto.graph.node[i].input[position] for i, position in placement.activations)
    )
    observed = with_outputs(proto, names)
    ranges = find_ranges(observed, names, list(calibration_batches(model)))
    weight_names = _quantize_weights(proto.graph, placement, constants)
    _insert(proto.graph, placement, ranges, weight_names)
    _drop_unused(proto.graph)


def with_outputs(proto: Any, names: tuple[str, ...]) -> bytes:
    """Return the serialised graph with further tensors among its outputs."""
    from onnx import ModelProto, ValueInfoProto

    copy = ModelProto()
    copy.CopyFrom(proto)
    known = {value.name for value in copy.graph.output}
    copy.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in known)
    data: bytes = copy.SerializeToString(deterministic=True)
    return data


def _float_constants(graph: Any) -> dict[str, NDArray[np.float32]]:
    from onnx import TensorProto, numpy_helper

    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }


def _refuse_float_layers(graph: Any, constants: Any, layer_of: dict[str, str]) -> None:
    """Raise ``UnsupportedModel`` for weights that would stay float: recurrent or computed ones."""
    for node in graph.node:
        computed = node.op_type in WEIGHTED - {"MatMul"} and node.input[1] not in constants
        if node.op_type in RECURRENT or computed:
            layer = layer_of.get(node.name, "(the model)")
            why = "computes its weights at run time" if computed else "has no int8 in TensorRT"
            raise UnsupportedModel(
                f"layer {layer} cannot be quantized to int8: this {node.op_type} {why}",
                expected="convolutions and linear layers with constant weights",
                next_step="compile it in a float precision",
            )


def _quantize_weights(
    graph: Any, placement: Placement, constants: dict[str, NDArray[np.float32]]
) -> dict[tuple[str, int | None], str]:
    """Add the int8 weights and their scales, and return the name of each by weight and axis."""
    names: dict[tuple[str, int | None], str] = {}
    for weight in placement.weights:
        key = (weight.name, weight.axis)
        if key in names:
            continue
        names[key] = f"{weight.name}/int8" if weight.axis in (0, None) else (
            f"{weight.name}/int8_{weight.axis}"
        )  # fmt: skip
        integers, scales = quantized_weight(constants[weight.name], weight.axis)
        _add(graph, names[key], integers)
        _add(graph, f"{names[key]}/scale", scales)
        _add(graph, f"{names[key]}/zero_point", np.zeros(scales.shape, np.int8))
    return names


def quantized_weight(
    weight: NDArray[np.float32], axis: int | None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight as integers from -127 to 127 and its scales, one per index of ``axis``."""
    others = tuple(d for d in range(weight.ndim) if d != axis)
    largest = np.abs(weight).max(axis=others if axis is not None else None, keepdims=True)
    scales = np.where(largest > 0, largest / _STEPS, 1.0).astype(np.float32)
    integers = np.clip(np.round(weight / scales), -_STEPS, _STEPS).astype(np.int8)
    return integers, scales.reshape(-1) if axis is not None else scales.reshape(())


def _insert(
    graph: Any,
    placement: Placement,
    ranges: dict[str, float],
    weight_names: dict[tuple[str, int | None], str],
) -> None:
    """Put the quantize and dequantize nodes between the tensors and the nodes that read them.

    A tensor is quantized once, behind the node that makes it; every reader has a dequantize node
    of its own, which TensorRT fuses into it.
    """
    nodes = list(graph.node)
    before: dict[int, list[Any]] = {}
    quantized: set[str] = set()
    after: dict[str, list[Any]] = {}
    for name, largest in ranges.items():
        _add(graph, f"{name}/scale", np.float32(largest / _STEPS))
        _add(graph, f"{name}/zero_point", np.int8(0))
    for index, position in placement.activations:
        node, name = nodes[index], nodes[index].input[position]
        if name not in quantized:
            quantized.add(name)
            after[name] = [
                _node("QuantizeLinear", name, f"{name}/int8", name=name, parameters=name)
            ]
        output = f"{node.name}/input_{position}"
        decode = _node("DequantizeLinear", f"{name}/int8", output, name=output, parameters=name)
        before.setdefault(index, []).append(decode)
        node.input[position] = output
    for weight in placement.weights:
        before.setdefault(weight.node, []).append(_decoded_weight(nodes, weight, weight_names))
    del graph.node[:]
    for value in graph.input:
        graph.node.extend(after.get(value.name, ()))
    for index, node in enumerate(nodes):
        graph.node.extend(before.get(index, ()))
        graph.node.append(node)
        for name in node.output:
            graph.node.extend(after.get(name, ()))


def _decoded_weight(
    nodes: list[Any], weight: Weight, names: dict[tuple[str, int | None], str]
) -> Any:
    stored = names[weight.name, weight.axis]
    node = nodes[weight.node]
    output = f"{node.name}/weight"
    node.input[weight.position] = output
    return _node(
        "DequantizeLinear", stored, output, name=output, parameters=stored, axis=weight.axis
    )


def _node(
    kind: str, source: str, result: str, *, name: str, parameters: str, axis: int | None = None
) -> Any:
    from onnx import helper

    inputs = [source, f"{parameters}/scale", f"{parameters}/zero_point"]
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return helper.make_node(kind, inputs, [result], name=f"{name}/{kind}", **attributes)


def _add(graph: Any, name: str, array: Any) -> None:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
