"""XNNPACK: float and int8 on CPUs; its payload is a flatbuffer with nodes and types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.scheme import KEPT_AS, PALETTE_BITS, Scheme
from edgesdk_executorch.delegate import Delegate, layer_of_handle, take_as_it_is
from edgesdk_executorch.flatc import decode
from edgesdk_executorch.node import Node

_EXECUTOR = "xnnpack"
_NO_VALUE = 2**32 - 1
_NO_HANDLE = 2**16 - 1
_HEADER_BYTES = 30

_DTYPES = {
    "fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "qint8": "int8", "quint8": "uint8",
    "qcint8": "int8", "qdint8": "dynamic int8", "qint32": "int32", "qcint32": "int32",
    "int32": "int32", "qcint4": "int4", "qbint4": "int4",
}  # fmt: skip


def read_nodes(payload: bytes, prefix: str) -> Iterator[Node]:
    """Yield the nodes of a payload in execution order, their names behind a prefix.

    Raises ``ArtifactError`` where ``flatc`` cannot read it, ``KeyError`` and the like where it is
    a flatbuffer of something else.
    """
    graph = _decode(payload)
    values = {value["id_out"]: value for value in map(_flatten, graph["xvalues"])}
    producers: dict[int, str] = {}
    for position, entry in enumerate(graph["xnodes"]):
        name = f"{prefix}{_operator_name(entry['xnode_union_type'])}_{position}"
        yield _node(name, entry, values, graph["constant_data"], producers)
        fields = entry["xnode_union"]
        producers |= {fields[key]: name for key in fields if key.startswith("output")}


def _decode(payload: bytes) -> Any:
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import (
        XNNHeader,
        _get_schema_bytes,
    )

    header = XNNHeader.from_bytes(payload[:_HEADER_BYTES])
    end = header.flatbuffer_offset + header.flatbuffer_size
    return decode(payload[header.flatbuffer_offset : end], _get_schema_bytes(), what="XNNPACK")


def _flatten(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value's fields in one level, whether it is quantized or not."""
    content = value["xvalue_union"]
    return {**content.get("tensor_value", {}), **content}


def _node(
    name: str,
    entry: Mapping[str, Any],
    values: Mapping[int, Any],
    constants: list[Any],
    producers: Mapping[int, str],
) -> Node:
    fields = entry["xnode_union"]
    kind = entry["xnode_union_type"]
    operands = [values[fields[key]] for key in _operand_keys(kind, fields)]
    activations = [value for value in operands if not value["constant_buffer_idx"]]
    result = _dtype(values[fields.get("output_id", fields.get("output_value_id"))])
    weight = values[fields["filter_id"]] if "filter_id" in fields else None
    source = "/".join(sorted({_dtype(value) for value in activations})) or result
    return Node(
        name=name,
        op=_operator_name(kind),
        dtype=result if source == result else f"{source}->{result}",
        where=_EXECUTOR,
        constants=dict(item for value in operands for item in _constants(value, constants)),
        reads=tuple(producers.get(value["id_out"], "") for value in activations),
        weight_dtype=_dtype(weight) if weight else None,
        weight_shape=tuple(weight["dims"]) if weight else None,
        handle=None if entry["debug_handle"] == _NO_HANDLE else str(entry["debug_handle"]),
    )


def _operand_keys(kind: str, fields: Mapping[str, Any]) -> list[str]:
    """Return the fields that name what a node reads; a concatenation has five, not all in use."""
    keys = [key for key in fields if key.endswith("_id") and not key.startswith("output")]
    if kind.startswith("XNNConcatenate"):
        keys = sorted(keys)[: int(kind[-1])]
    return [key for key in keys if fields[key] != _NO_VALUE]


def _constants(value: Mapping[str, Any], table: list[Any]) -> Iterator[tuple[str, int]]:
    """Yield key (a hash) and bytes of a value's data and scales, as far as they are constants."""
    scales = value.get("quant_params", {}).get("scale_buffer_idx", 0)
    for index in (value["constant_buffer_idx"], scales):
        if index:
            yield table[index]["named_key"], table[index]["size"]


def _dtype(value: Mapping[str, Any]) -> str:
    name = str(value["datatype"]).removeprefix("xnn_datatype_")
    return _DTYPES.get(name, name)


def _operator_name(kind: str) -> str:
    """Return ``depthwise_conv2d`` for ``XNNDepthwiseConv2d``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.removeprefix("XNN")).lower()


def _refusal(scheme: Scheme, runtime: Runtime) -> str | None:
    if scheme == "fp16":
        return (
            "ExecuTorch serialises every XNNPACK convolution weight as float32, so a float16 "
            "file is no smaller"
        )
    if scheme == "w8a16":
        return "XNNPACK has no kernels of int16 activations"
    if scheme in KEPT_AS:
        return "ExecuTorch stores no masks of weights; int8_dynamic and int4_dynamic are narrow"
    if scheme in PALETTE_BITS:
        return "XNNPACK has no tables of weights; int8_dynamic and int4_dynamic are narrow there"
    if scheme in ("w8", "w4"):
        return (
            "XNNPACK computes weight-only formats wrongly in this version of ExecuTorch; "
            f"{'int8' if scheme == 'w8' else 'int4'}_dynamic stores the same weights"
        )
    return None


def _partitioner(model: CompressedModel, runtime: Runtime) -> Any:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return XnnpackPartitioner()


DELEGATE = Delegate(
    name="xnnpack",
    title="XNNPACK",
    backend_id="XnnpackBackend",
    executor=_EXECUTOR,
    mixes={
        "fp32": ("int8_dynamic", "int4_dynamic"),
        "int8": ("fp32", "int8_dynamic", "int4_dynamic"),
        "int8_dynamic": ("fp32", "int4_dynamic"),
        "int4_dynamic": ("fp32", "int8_dynamic"),
    },
    unmixed=(
        "the ranges of static int8 are calibrated through the whole network: make int8 the "
        "network's scheme and name the layers that leave it"
    ),
    runs_here=True,
    quantizable=(
        "add",
        "multiply",
        "concatenate2",
        "concatenate3",
        "concatenate4",
        "concatenate5",
    ),
    refusal=_refusal,
    prepare=take_as_it_is,
    partitioner=_partitioner,
    finish=layer_of_handle,
    read_nodes=read_nodes,
)
