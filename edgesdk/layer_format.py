"""Which format a layer really gets: what was asked for it, or why its target cannot and what then.

A converter that leaves a layer in float without a word is how "quantized" models stay large and
slow. So the rules stand here, in the open: cost models price by them, targets emit by them, and
the checks on an emitted file compare each layer with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgesdk.errors import UnsupportedModel, UsageError, unknown_name
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import GROUP_SIZE, KEPT_AS, PALETTE_BITS, WEIGHT_BYTES, Scheme

_NAMED_AT_MOST = 5

LayerSchemes = Mapping[str, Scheme]
"""Layers (by module path) that have another scheme than the network."""

WEIGHTED_KINDS = frozenset(
    {
        "linear", "conv1d", "conv2d", "conv3d",
        "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    }
)  # fmt: skip
_CONVERTED_KINDS = frozenset({"conv1d", "conv2d", "linear"})

# Refused by ai-edge-quantizer 0.10 or, in int16, by TensorFlow Lite Micro's kernels.
_NO_INT16 = frozenset(
    {
        "div", "embedding", "hardswish", "layer_norm", "leaky_relu",
        "scaled_dot_product_attention", "upsample_bilinear2d",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A layer's operator with weights: its kind, its weight as PyTorch has it ``[C_out,
    C_in / groups, *K]`` (transposed convolutions ``[C_in, C_out / groups, *K]``), its groups."""

    kind: str
    shape: tuple[int, ...]
    groups: int = 1

    @property
    def inputs(self) -> int:
        """What one output sums over along the channels: the axis that int4 groups divide."""
        return self.shape[1]


@dataclass(frozen=True, kw_only=True)
class LayerFormat:
    """The scheme a layer gets, and why it is not the one asked for (empty where it is)."""

    scheme: Scheme
    reason: str = ""


Rule = Callable[[Weighted, Scheme], LayerFormat]


def layer_format(target: str, layer: Weighted, asked: Scheme) -> LayerFormat:
    """Return what a target makes of a layer for which a scheme was asked.

    A target from elsewhere is taken at its word.
    """
    rule = _RULES.get(target)
    return rule(layer, asked) if rule else LayerFormat(scheme=asked)


def op_formats(
    graph: OpGraph, target: str, scheme: Scheme, layer_schemes: LayerSchemes
) -> dict[str, LayerFormat]:
    """Return the format of every operator with weights, by its name."""
    return {
        op.name: layer_format(target, weighted, layer_schemes.get(op.layer, scheme))
        for op in graph.ops
        if (weighted := weighted_of(op, graph)) is not None
    }


def op_schemes(
    graph: OpGraph, target: str, scheme: Scheme, layer_schemes: LayerSchemes
) -> dict[str, Scheme]:
    """Return the scheme of every operator with weights, by its name."""
    formats = op_formats(graph, target, scheme, layer_schemes)
    return {name: found.scheme for name, found in formats.items()}


def weighted_of(op: Op, graph: OpGraph) -> Weighted | None:
    """Return a convolution's or linear layer's weight, None for every other operator."""
    if op.kind not in WEIGHTED_KINDS or not op.parameters:
        return None
    groups = op.attributes.get("groups", 1)
    shape = graph.tensors[op.parameters[0]].shape
    return Weighted(kind=op.kind, shape=shape, groups=groups if isinstance(groups, int) else 1)


def check_layers(graph: OpGraph, layer_schemes: LayerSchemes) -> None:
    """Raise ``UsageError`` for a name that is no layer with weights of the graph."""
    layers = [op.layer for op in graph.ops if weighted_of(op, graph) is not None]
    listing = f"the layers with weights begin with {', '.join(layers[:_NAMED_AT_MOST])}"
    for name in layer_schemes:
        if name not in layers:
            raise UsageError(unknown_name("layer", name, layers, listing=listing))


def require_formats(
    graph: OpGraph, target: str, scheme: Scheme, layer_schemes: LayerSchemes
) -> None:
    """Raise ``UnsupportedModel`` for a layer that cannot have the scheme asked for it by name, and
    where not a single layer can have the network's."""
    check_layers(graph, layer_schemes)
    formats = op_formats(graph, target, scheme, layer_schemes)
    for op in graph.ops:
        found = formats.get(op.name)
        if found is not None and found.reason and op.layer in layer_schemes:
            raise UnsupportedModel(
                f"layer {op.layer!r} cannot be {layer_schemes[op.layer]}: {found.reason}",
                next_step=f"leave it to the network's {scheme}, which makes it {found.scheme}",
            )
    refusal = scheme_refusal(graph, target, scheme, layer_schemes)
    if refusal is not None:
        raise UnsupportedModel(refusal, next_step="choose another scheme")


def scheme_refusal(
    graph: OpGraph, target: str, scheme: Scheme,
    layer_schemes: LayerSchemes = MappingProxyType({}),
) -> str | None:  # fmt: skip
    """Return why not a single layer of the graph can have a scheme, None where one can.

    Integers throughout need every operator: one without an int16 form rules ``w8a16`` out.
    """
    lacking = [op for op in graph.ops if scheme == "w8a16" and op.kind in _NO_INT16]
    if lacking and target == "tflite":
        named = ", ".join(sorted({f"{op.kind} at layer {op.layer!r}" for op in lacking}))
        return f"there is no int16 form of {named}; int8 has more operators"
    formats = op_formats(graph, target, scheme, layer_schemes)
    reasons = sorted({found.reason for found in formats.values() if found.reason})
    if not reasons or any(found.scheme == scheme for found in formats.values()):
        return None
    return f"no layer of the model can be {scheme}: {'; '.join(reasons)}"


def name_exceptions(formats: Iterable[tuple[str, LayerFormat]]) -> str:
    """Return "int8_dynamic instead: head (its 10 inputs ...)" for layers that got another scheme
    than asked, empty where there are none."""
    named: dict[Scheme, list[str]] = {}
    for layer, found in formats:
        if found.reason:
            named.setdefault(found.scheme, []).append(f"{layer or 'the model'} ({found.reason})")
    texts = []
    for scheme, layers in named.items():
        more = len(layers) - _NAMED_AT_MOST
        listed = ", ".join(layers[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
        texts.append(f"{len(layers)} in {scheme} instead: {listed}")
    return "; ".join(texts)


def _executorch(layer: Weighted, asked: Scheme) -> LayerFormat:
    """XNNPACK finds ranges at run time for linear layers and plain 2-D convolutions."""
    if asked == "int4_dynamic":
        return _int4(layer, asked, "int8_dynamic", _executorch)
    plain = layer.kind == "conv2d" and layer.groups == 1 and layer.inputs > 1
    if asked == "int8_dynamic" and layer.kind != "linear" and not plain:
        reason = f"XNNPACK finds no ranges at run time for {_unusual(layer)}"
        return LayerFormat(scheme="fp32", reason=reason)
    return LayerFormat(scheme=asked)


def _unusual(layer: Weighted) -> str:
    if layer.kind != "conv2d":
        return f"a {layer.kind}"
    if layer.inputs == 1:  # XNNPACK calls it depthwise whatever its groups
        return "convolutions that read one channel each"
    return "grouped convolutions"


def _tflite(layer: Weighted, asked: Scheme) -> LayerFormat:
    """LiteRT's int8 kernels for run-time ranges take convolutions of one and two dimensions."""
    if asked == "int4_dynamic":
        return _int4(layer, asked, "int8_dynamic", _tflite)
    if asked == "int8_dynamic" and layer.kind not in _CONVERTED_KINDS:
        reason = f"LiteRT has no {layer.kind} with ranges found at run time"
        return LayerFormat(scheme="fp32", reason=reason)
    return LayerFormat(scheme=asked)


def _coreml(layer: Weighted, asked: Scheme) -> LayerFormat:
    """Core ML decodes int4 blocks along the input channels of any layer, tables and masks of any
    one."""
    if asked in KEPT_AS and _saved_by_mask(layer, asked) <= _MASK_BYTES:
        reason = f"its {math.prod(layer.shape)} weights are too few for a mask to pay"
        return LayerFormat(scheme=_coreml(layer, KEPT_AS[asked]).scheme, reason=reason)
    if asked in PALETTE_BITS and _saved_by_palette(layer, PALETTE_BITS[asked]) <= _BLOB_BYTES:
        reason = f"its {math.prod(layer.shape)} weights are too few for a table to pay"
        return LayerFormat(scheme="fp16", reason=reason)
    if asked == "w4" and layer.kind.startswith("conv_transpose"):
        return LayerFormat(scheme="w8", reason="transposed convolutions have no int4 there")
    if asked == "w4" and layer.inputs % GROUP_SIZE:
        return LayerFormat(scheme="w8", reason=_indivisible(layer))
    return LayerFormat(scheme=asked)


def _saved_by_palette(layer: Weighted, bits: int) -> float:
    """Return the bytes that float16 weights shrink by as places in a table of float16."""
    weights = math.prod(layer.shape)
    return 2.0 * weights - weights * bits / 8 - 2.0 * (1 << bits)


def _saved_by_mask(layer: Weighted, scheme: Scheme) -> float:
    """Return the bytes that are saved where half the weights are zero and not stored."""
    return (WEIGHT_BYTES[KEPT_AS[scheme]] - WEIGHT_BYTES[scheme]) * math.prod(layer.shape)


def _int4(layer: Weighted, asked: Scheme, otherwise: Scheme, rule: Rule) -> LayerFormat:
    if layer.kind != "linear":
        reason = "int4 weights are for linear layers there"
    elif layer.inputs % GROUP_SIZE:
        reason = _indivisible(layer)
    else:
        return LayerFormat(scheme=asked)
    found = rule(layer, otherwise)
    return LayerFormat(scheme=found.scheme, reason=reason)


def _indivisible(layer: Weighted) -> str:
    return f"its {layer.inputs} inputs do not divide into groups of {GROUP_SIZE}"


_BLOB_BYTES = 128
"""What one more constant may take beside its values in a Core ML package: a record of 64 bytes, and
as many to align it."""

_MASK_BYTES = 384
"""The same for a mask, and what the program takes to apply it."""

_RULES: Mapping[str, Rule] = {"executorch": _executorch, "tflite": _tflite, "coreml": _coreml}

FALLBACKS: Mapping[Scheme, Scheme] = {
    "int4_dynamic": "int8_dynamic", "w4": "w8", **dict.fromkeys(PALETTE_BITS, "fp16"), **KEPT_AS,
}  # fmt: skip
"""What layers get that cannot be int4, or are too small for a table or a mask: a device must know
both."""


def fallback_refusal(scheme: Scheme, precisions: Collection[Scheme]) -> str | None:
    """Return why a runtime of these precisions cannot have a scheme: what some layers then get is
    not among them."""
    fallback = FALLBACKS.get(scheme)
    if fallback is None or fallback in precisions:
        return None
    return f"layers that cannot be {scheme} are {fallback}, which the device profile does not list"
