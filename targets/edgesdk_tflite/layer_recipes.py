"""Each layer's scheme: as a recipe for the quantizer, and as what a file's operator shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgesdk.compressed import CompressedModel
from edgesdk.layer_format import LayerFormat, Weighted, layer_format
from edgesdk.scheme import Scheme
from edgesdk_tflite.flatbuffer import FileOperator, FileTensor, ModelFile, parse_model
from edgesdk_tflite.operators import CONVERSIONS, float_islands
from edgesdk_tflite.packages import NAME

_KINDS: Mapping[str, str] = {
    "FULLY_CONNECTED": "linear",
    "CONV_2D": "conv2d",
    "DEPTHWISE_CONV_2D": "conv2d",
    "CONV_3D": "conv3d",
    "TRANSPOSE_CONV": "conv_transpose2d",
}

STATIC_TYPES: Mapping[Scheme, str] = {"int8": "int8", "w8a16": "int16"}
"""Schemes of integers throughout, and the type between their layers."""


def add_layer_recipes(recipes: Any, float_file: Any, model: CompressedModel) -> None:
    """Add what differs from the network's own recipe, which is there already: a later one wins.

    The quantizer knows an operator by the names of its outputs, each followed by a semicolon.
    """
    file = parse_model(float_file.content)
    for op, _, wanted in layer_formats(file, float_file.layer_of, model):
        if wanted.scheme != _recipe_of_network(model.scheme):
            names = "|".join(re.escape(tensor.name) for tensor in op.outputs)
            _add(recipes, f"^({names});", wanted.scheme)


def _recipe_of_network(scheme: Scheme) -> Scheme:
    """Return what a network's recipe makes of every layer: int8 where some will be int4."""
    return "int8_dynamic" if scheme == "int4_dynamic" else scheme


def _add(recipes: Any, regex: str, scheme: Scheme) -> None:
    from ai_edge_quantizer import qtyping

    every = qtyping.TFLOperationName.ALL_SUPPORTED
    if scheme == "int8_dynamic":
        recipes.add_dynamic_config(regex=regex, operation_name=every, num_bits=8)
    elif scheme == "int4_dynamic":
        recipes.add_dynamic_config(
            regex=regex,
            operation_name=qtyping.TFLOperationName.FULLY_CONNECTED,
            num_bits=4,
            granularity=qtyping.QuantGranularity.BLOCKWISE_32,
        )
    else:
        recipes.add_quantization_config(
            regex=regex, operation_name=every, algorithm_key="no_quantize"
        )


def layer_formats(
    file: ModelFile, layer_of: Mapping[str, str], model: CompressedModel
) -> Iterator[tuple[FileOperator, FileTensor, LayerFormat]]:
    """Yield every operator with a kernel, the kernel, and the format that its layer should have."""
    for op, kernel in file.kernels():
        layer = layer_behind(op.outputs[0].name, layer_of)
        kind = _KINDS.get(op.name)
        if kind is None:  # a matrix product with a constant
            yield op, kernel, LayerFormat(scheme=_recipe_of_network(model.scheme))
            continue
        weighted = Weighted(kind=kind, shape=(kernel.shape[0], kernel.shape[-1]))
        yield op, kernel, layer_format(NAME, weighted, model.scheme_of(layer))


def scheme_found(op: FileOperator, kernel: FileTensor) -> str:
    """Return the scheme that an operator's kernel and activations are, in words where it is none.

    A kernel that a DEQUANTIZE restores only is stored narrow; one that a float operator reads
    directly multiplies in int8, with the range of what it meets found at run time.
    """
    direct = any(tensor is not None and tensor.key == kernel.key for tensor in op.inputs)
    fed = {tensor.dtype for tensor in op.activations}
    if kernel.dtype in ("float32", "float16") and fed == {"float32"}:
        return "fp32" if kernel.dtype == "float32" else "fp16"
    static = [scheme for scheme, dtype in STATIC_TYPES.items() if fed == {dtype}]
    if direct and static and kernel.dtype == "int8":
        return static[0]
    if fed == {"float32"} and kernel.dtype in ("int8", "int4"):
        bits = kernel.dtype.removeprefix("int")
        return f"int{bits}_dynamic" if direct else f"w{bits}"
    return f"{kernel.dtype} kernel, {' and '.join(sorted(fed))}"


def layer_behind(tensor: str, layer_of: Mapping[str, str]) -> str:
    """Return the layer of a tensor, whatever the quantizer appended to its name; empty for none."""
    name = tensor.removesuffix("_quantized").removesuffix("_dequant")
    return layer_of.get(name, "")


def place(tensor: str, layer_of: Mapping[str, str]) -> str:
    """Return "layer 'head'" for a tensor, or its own name where its layer is not known."""
    layer = layer_behind(tensor, layer_of)
    return f"layer {layer!r}" if layer else f"tensor {tensor!r}"


def unasked_islands(
    file: ModelFile, layer_of: Mapping[str, str], model: CompressedModel
) -> tuple[FileOperator, ...]:
    """Return what computes, or converts, in float within a quantized network though nobody asked.

    Layers with a scheme of their own are asked for, and so are the conversions around them.
    """
    islands = float_islands(file)
    if not model.layer_schemes:
        return islands
    return tuple(
        op
        for op in islands
        if op.name not in CONVERSIONS
        and layer_behind(op.outputs[0].name, layer_of) not in model.layer_schemes
    )
