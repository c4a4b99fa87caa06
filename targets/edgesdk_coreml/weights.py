"""Comparing weights: what a package decodes to, against the module's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgesdk.artifact import Check
from edgesdk.compress.palette import palettise
from edgesdk.compressed import CompressedModel
from edgesdk_coreml.dataflow import Dataflow
from edgesdk_coreml.evaluate import constant_values
from edgesdk_coreml.export import export_float
from edgesdk_coreml.package import Operation, Reference
from edgesdk_coreml.quantization import spread_blocks
from edgesdk_coreml.reference import Candidate, WeightedLayer, weighted_layers
from edgesdk_coreml.zeros import with_zeros

# Half a unit in the last place, relative to the value (IEEE 754: 10 stored mantissa bits for
# float16), and half the spacing of float16's subnormal numbers.
_HALF_ULP_FLOAT16 = 2.0**-11
_HALF_SUBNORMAL_FLOAT16 = 2.0**-25
# Folding a batch norm multiplies a few float32 numbers, in an order that is the converter's.
_FOLDING = 1e-6
# A folded bias is a difference, so its error is relative to its terms; 2^-15 of the largest bias
# is far above float32's rounding and far below float16's.
_BIAS_FOLDING = 2.0**-15
_LARGEST_INT8 = 127
# How much more one table may lose than another: ours is within 2 % of the best there is, and which
# one it is depends on the last digits of what it was found for.
_AS_NEAR = 1.05


def check_weights(flow: Dataflow, layer_of: Mapping[str, str], model: CompressedModel) -> Check:
    """Return whether every layer's decoded weight and bias are the module's.

    int8 weights may be off by half a quantization step plus what rounding their scale to float16
    adds, float16 ones by half a unit in the last place; palettised ones are the nearest values of
    the best table; sparse ones are zero where PyTorch's are. Weights that the converter rewrites
    further (constant factors folded in, products transposed) are left to the evaluated graph.
    """
    uses = weighted_layers(export_float(with_zeros(model)))
    values = constant_values(flow.program)
    problems, rewritten = [], 0
    matched: set[WeightedLayer] = set()
    for op in flow.weighted():
        layer = layer_of.get(op.name, "")
        here = [use for use in uses if use.layer == layer]
        found = [use for use in here if _matches(op, use, values, flow)]
        if found:
            # Uses of one layer look alike; each operation accounts for one of them.
            matched.add(next((use for use in found if use not in matched), found[0]))
        elif any(not use.candidates for use in here):
            rewritten += 1
        else:
            problems.append(f"{op.name} does not hold the weights of layer {layer!r}")
    missing = [use for use in uses if use.required and use.candidates and use not in matched]
    problems += [f"the weights of layer {use.layer!r} are missing" for use in missing]
    seen = f"{len(matched)} layers decode to the model's weights"
    seen += f", {rewritten} rewritten by the converter were not compared" if rewritten else ""
    return Check(name="weights", passed=not problems, detail="; ".join(problems) or seen)


def _matches(op: Operation, use: WeightedLayer, values: Mapping[str, Any], flow: Dataflow) -> bool:
    return any(_is_candidate(op, candidate, values, flow) for candidate in use.candidates)


def _is_candidate(
    op: Operation, candidate: Candidate, values: Mapping[str, Any], flow: Dataflow
) -> bool:
    weight, bias = candidate
    stored = _value(op, "weight", values)
    if stored is None or stored.shape != weight.shape:
        return False
    if not _is_weight(op, weight, stored, flow):
        return False
    wanted = torch.zeros(1) if bias is None else bias
    found = _value(op, "bias", values)
    held = torch.zeros_like(wanted) if found is None else found
    tolerance = wanted.abs() * _HALF_ULP_FLOAT16 + _HALF_SUBNORMAL_FLOAT16
    if _is_float32(op):
        tolerance = wanted.abs() * _FOLDING
    tolerance = tolerance + wanted.abs().max() * _BIAS_FOLDING
    return bool(((held - wanted).abs() <= tolerance).all())


def _is_weight(op: Operation, weight: Tensor, stored: Tensor, flow: Dataflow) -> bool:
    """Return whether a decoded weight is the model's as closely as its format can be.

    Each palettised one is the value of its table that lies nearest to the model's, and all of them
    together are as near as those of the table that k-means finds for the model's. Where the file
    masks weights, the model's are zero.
    """
    tolerance = _weight_tolerance(op, weight, flow)
    distance = (stored - weight).abs()
    is_sparse = flow.mask(op) is not None
    if is_sparse and not bool((stored[weight == 0] == 0).all()):
        return False
    found = flow.of_decoder(op, "lut")
    if found is None:
        return bool((distance <= tolerance).all())
    table = torch.from_numpy(found.astype(np.float32))
    entries = table.flatten().sort().values
    nearest = entries[torch.bucketize(weight, (entries[1:] + entries[:-1]) / 2)]
    if is_sparse:
        nearest = torch.where(weight == 0, weight, nearest)
    # What was compared with the table was rounded to float16.
    if not bool((distance <= (nearest - weight).abs() + 2 * tolerance).all()):
        return False
    axis = 1 if op.kind == "conv_transpose" else 0
    bits = table.numel().bit_length() - 1
    palette = palettise(weight.numpy(), bits, axis=axis, zeros_apart=is_sparse)
    best = torch.from_numpy(palette.decoded).float() - weight
    least = best.square().sum() + tolerance.square().sum()
    return bool(distance.square().sum() <= _AS_NEAR * least)


def _weight_tolerance(op: Operation, weight: Tensor, flow: Dataflow) -> Tensor:
    tolerance = weight.abs() * _FOLDING
    if _is_float32(op):
        return tolerance
    tolerance = tolerance + weight.abs() * _HALF_ULP_FLOAT16 + _HALF_SUBNORMAL_FLOAT16
    held = flow.of_decoder(op, "scale")
    if held is None:
        return tolerance
    scale = torch.from_numpy(held.astype(np.float32))
    if scale.dim() == 1 and weight.dim() > 1:
        axis = int(flow.of_decoder(op, "axis") or 0)
        scale = scale.reshape([-1 if d == axis else 1 for d in range(weight.dim())])
    elif scale.dim() == weight.dim():
        scale = spread_blocks(scale, weight)
    # coremltools rounds weights to float16 and divides them by their scales in float16 before it
    # rounds to integers; static int8 comes as integers, but its scales are then rounded to float16.
    # The decoded weight, rounded once more, is in the tolerance already.
    in_float16 = 2 * (weight.abs() + scale / 2) * _HALF_ULP_FLOAT16
    return tolerance + scale / 2 + in_float16 + _LARGEST_INT8 * _HALF_SUBNORMAL_FLOAT16


def _is_float32(op: Operation) -> bool:
    return op.outputs[0].dtype == "float32"


def _value(op: Operation, parameter: str, values: Mapping[str, Any]) -> Tensor | None:
    for binding in op.arguments.get(parameter, ()):
        value = values.get(binding.name) if isinstance(binding, Reference) else binding
        return None if value is None else torch.tensor(np.asarray(value)).float()
    return None
