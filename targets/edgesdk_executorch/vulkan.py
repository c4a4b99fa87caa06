"""Vulkan: phones' GPUs, in float32, float16 and static int8; its payload is a flatbuffer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.scheme import WEIGHT_ONLY_SCHEMES, Scheme
from edgesdk_executorch.delegate import Delegate, innermost_layer
from edgesdk_executorch.flatc import decode
from edgesdk_executorch.node import Node

_EXECUTOR = "vulkan"
_TENSOR = "VkTensor"
# Brings constants onto the GPU when the program is loaded: no operator of an inference.
_PREPACK = "et_vk.prepack.default"
_DECODING = "quantized_decomposed.dequantize_per_channel.default"

# int8 weights are padded and interleaved in the file; what they were follows from these arguments
# of ``et_vk.q8ta_conv2d*`` (executorch/backends/vulkan/custom_ops_lib.py).
_KERNEL_SIZE, _GROUPS = 9, 13

# Which argument of an operator of the lowered graph is its weight.
_WEIGHT_ARGUMENT = {
    "aten.convolution.default": 1, "aten.addmm.default": 2, "aten.mm.default": 1,
    "aten.linear.default": 1,
}  # fmt: skip


def read_nodes(payload: bytes, prefix: str) -> Iterator[Node]:
    """Yield the nodes of a payload in execution order, their names behind a prefix.

    Raises ``ArtifactError`` where ``flatc`` cannot read it, ``KeyError`` and the like where it is
    a flatbuffer of something else.
    """
    graph = _decode(payload)
    values = graph["values"]
    producers: dict[int, str] = {}
    stored = {i: i for i, value in enumerate(values) if _is_constant(value)}
    for position, call in enumerate(graph["chain"]):
        *operands, result = call["args"]
        if call["name"] in (_PREPACK, _DECODING) and operands[0] in stored:
            stored[result] = stored[operands[0]]
            if call["name"] == _PREPACK:
                continue
        name = f"{prefix}{call['name']}_{position}"
        yield _node(name, call, graph, stored=stored, producers=producers)
        producers |= dict.fromkeys(_members(values, result), name)


def _decode(payload: bytes) -> Any:
    from importlib import resources

    from executorch.backends.vulkan import serialization
    from executorch.backends.vulkan.serialization.vulkan_graph_serialize import (
        extract_vk_flatbuffer,
    )

    schema = (resources.files(serialization) / "schema.fbs").read_bytes()
    return decode(extract_vk_flatbuffer(payload), schema, what="Vulkan")


def _node(
    name: str, call: Mapping[str, Any], graph: Mapping[str, Any], *,
    stored: Mapping[int, int], producers: Mapping[int, str],
) -> Node:  # fmt: skip
    """Return a call as a node; ``stored`` maps values to the constants that they come from."""
    values, constants = graph["values"], graph["constants"]
    *operands, result = call["args"]
    read = [i for operand in operands for i in _members(values, operand)]
    activations = [i for i in read if i not in stored]
    given = _dtype(values[_members(values, result)[0]])
    source = "/".join(sorted({_dtype(values[i]) for i in activations})) or given
    weight = next((i for i in read if i in stored and _is_weight(call["name"], values[i])), None)
    held = [values[stored[i]]["value"]["constant_id"] for i in read if i in stored]
    return Node(
        name=name,
        op=call["name"].removesuffix(".default"),
        dtype=given if source == given else f"{source}->{given}",
        where=_EXECUTOR,
        constants={constants[i]["named_key"]: constants[i]["length"] for i in held},
        reads=tuple(producers.get(i, "") for i in activations),
        weight_dtype=None if weight is None else _dtype(values[stored[weight]]),
        weight_shape=None if weight is None else _weight_shape(call, values, weight),
        handle=str(call["node_id"]),
    )


def _weight_shape(call: Mapping[str, Any], values: list[Any], weight: int) -> tuple[int, ...]:
    """Return the shape of a layer's weight as the model has it; int8 ones are packed otherwise."""
    dims = _dims(values[weight])
    if ".q8ta_" not in call["name"]:
        return dims
    given, read = _dims(values[call["args"][-1]]), _dims(values[call["args"][0]])
    if "conv" not in call["name"]:
        return given[-1], read[-1]
    kernel = values[call["args"][_KERNEL_SIZE]]["value"]["items"]
    groups = values[call["args"][_GROUPS]]["value"]["int_val"]
    return given[1], read[1] // groups, *kernel


def _members(values: list[Any], index: int) -> list[int]:
    """Return the tensors that an argument is: itself, those of a list, or none for a number."""
    value = values[index]
    if value["value_type"] == "ValueList":
        return [i for item in value["value"]["items"] for i in _members(values, item)]
    return [index] if value["value_type"] == _TENSOR else []


def _is_constant(value: Mapping[str, Any]) -> bool:
    return bool(value["value_type"] == _TENSOR and value["value"]["constant_id"] >= 0)


def _is_weight(name: str, value: Mapping[str, Any]) -> bool:
    return ("conv" in name or "linear" in name) and len(_dims(value)) > 1


def _dims(value: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(value["value"].get("dims", ()))


def _dtype(value: Mapping[str, Any]) -> str:
    return str(value["value"]["datatype"]).lower()


def _refusal(scheme: Scheme, runtime: Runtime) -> str | None:
    if scheme in ("int8_dynamic", "int4_dynamic"):
        return (
            "ExecuTorch's Vulkan delegate decodes these weights to float and multiplies in float, "
            "or cannot be lowered to; int8 is what it computes in integers"
        )
    if scheme == "w8a16":
        return "int16 activations are not emitted for Vulkan here; int8 has integer kernels"
    if scheme in WEIGHT_ONLY_SCHEMES:
        return "weight-only formats are not emitted for Vulkan here; int8 stores weights as small"
    return None


def _drop_clamps(graph: GraphModule) -> None:
    """Remove clamps that rounding to int8 does anyway, in place: the same integers.

    Vulkan fuses a convolution with what rounds its result, and a clamp between the two would leave
    it in float. The clamp changes nothing where the integers' range ends within half a step of its
    bounds.

    Given:   q = quantize(hardtanh(x, 0, 6), scale, zero, -128, 127)      6 = (127 - zero) * scale
    Result:  q = quantize(x, scale, zero, -128, 127)
    """
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.hardtanh.default):
        source, low, high = _arguments(node)
        users = list(node.users)
        if all(_is_within(user, float(low), float(high)) for user in users) and users:
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
    graph.recompile()


def _arguments(node: FxNode) -> tuple[Any, ...]:
    return node.args


def _is_within(node: FxNode, low: float, high: float) -> bool:
    """Return whether a node rounds to integers that end within half a step of the bounds."""
    if "quantize_per_tensor" not in str(node.target):
        return False
    _, scale, zero, least, most, _ = _arguments(node)
    ends = (least - zero) * scale, (most - zero) * scale
    return bool(ends[0] >= low - scale / 2 and ends[1] <= high + scale / 2)


def _partitioner(model: CompressedModel, runtime: Runtime) -> Any:
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    return VulkanPartitioner({"force_fp16": model.scheme == "fp16"})


def _finish(module: Any) -> dict[str, str]:
    """Return the layer behind each convolution and linear layer of the payload.

    Vulkan's passes number the graph anew, and nothing leads back. But they keep the order of what
    has weights: where sizes tally one by one, the payload's layers are the graph's.
    """
    weighted = [node for node in read_nodes(module.processed_bytes, "0.") if node.weight_shape]
    layers = [
        (math.prod(node.args[_WEIGHT_ARGUMENT[name]].meta["val"].shape), innermost_layer(node))
        for node in module.original_module.graph.nodes
        if (name := getattr(node.target, "__name__", "")) in _WEIGHT_ARGUMENT
    ]
    sizes = [math.prod(node.weight_shape or ()) for node in weighted]
    if sizes != [size for size, _ in layers]:
        return {}
    found = zip((node.handle for node in weighted), (layer for _, layer in layers), strict=True)
    return {handle: layer for handle, layer in found if handle is not None and layer}


DELEGATE = Delegate(
    name="vulkan",
    title="Vulkan",
    backend_id="VulkanBackend",
    executor=_EXECUTOR,
    mixes={},
    unmixed="files for Vulkan give all layers of a network one scheme",
    runs_here=False,
    quantizable=("aten.add.Tensor", "aten.relu"),
    refusal=_refusal,
    prepare=_drop_clamps,
    partitioner=_partitioner,
    finish=_finish,
    read_nodes=read_nodes,
)
