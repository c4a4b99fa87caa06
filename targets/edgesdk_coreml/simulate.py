"""A simulation in PyTorch of what the package computes, for predicting accuracy before emitting."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from edgesdk import target
from edgesdk.compress.pt2e import quantize_static_int8
from edgesdk.compressed import CompressedModel
from edgesdk.scheme import GROUP_SIZE, KEPT_AS, Scheme
from edgesdk.target import Simulation
from edgesdk.task import Tensors, output_tensors
from edgesdk_coreml.palettes import narrow_layers, output_axis, palettise_layers
from edgesdk_coreml.toolchain import find_toolchain
from edgesdk_coreml.zeros import with_zeros


def simulate_model(model: CompressedModel) -> Simulation:
    """Return a function of PyTorch-layout inputs of any batch that gives a tuple of outputs.

    int8: the calibrated graph that is converted, its float parts in float32. fp16: the module
    with weights, inputs and the result of every operator rounded to float16 and computed in
    float32 between (a batch norm is rounded on its own here and folded in the file). Narrow
    weights: as fp16, with those that the file decodes to. fp32: the module itself. Every
    output's first dimension must be the batch.
    """
    if model.scheme == "int8":
        target.require(find_toolchain())
        return _fixed_batch(
            quantize_static_int8(_with_rounded_weights(model)), model.example_inputs[0].shape[0]
        )
    module = _with_rounded_weights(model).module
    return _as_it_is(module) if model.scheme == "fp32" else _in_half_precision(module)


def _with_rounded_weights(model: CompressedModel) -> CompressedModel:
    """Return a copy whose layers of narrow weights have what the package decodes to.

    Rounding to scales is as good before a batch norm is folded: both scale whole output channels.
    """
    sparse = with_zeros(model)
    rounded = replace(sparse, module=deepcopy(sparse.module).eval())
    for _, layer, scheme in narrow_layers(rounded):
        stored = KEPT_AS.get(scheme, scheme)
        if stored in ("w8", "w4"):
            with torch.no_grad():
                layer.weight.copy_(_rounded(layer.weight, stored, outputs=output_axis(layer)))
    palettise_layers(rounded)
    return rounded


def _rounded(weight: Tensor, scheme: Scheme, *, outputs: int) -> Tensor:
    """Return a weight on the grid of its scales: one per output channel, or 32 inputs of one."""
    steps = 127 if scheme == "w8" else 7
    if scheme == "w4":
        grouped = weight.reshape(weight.shape[0], -1, GROUP_SIZE, *weight.shape[2:])
        within = list(range(2, grouped.dim()))  # a group's inputs and all taps share a scale
        scale = grouped.abs().amax(within, keepdim=True) / steps
        return ((grouped / _safe(scale)).round().clamp(-steps, steps) * scale).reshape(weight.shape)
    others = [axis for axis in range(weight.dim()) if axis != outputs]
    scale = weight.abs().amax(others, keepdim=True) / steps
    return (weight / _safe(scale)).round().clamp(-steps, steps) * scale


def _safe(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _as_it_is(module: nn.Module) -> Simulation:
    def predict(*inputs: Tensor) -> Tensors:
        with torch.no_grad():
            return output_tensors(module(*inputs))

    return predict


def _in_half_precision(module: nn.Module) -> Simulation:
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.copy_(_to_half_and_back(tensor))

    def predict(*inputs: Tensor) -> Tensors:
        with torch.no_grad(), _RoundToHalf():  # type: ignore[no-untyped-call]
            return output_tensors(module(*map(_to_half_and_back, inputs)))

    return predict


def _fixed_batch(graph: nn.Module, batch_size: int) -> Simulation:
    """Split what comes into the graph's own batch; the last is filled up and cut again."""

    def predict(*inputs: Tensor) -> Tensors:
        samples = inputs[0].shape[0]
        parts = []
        with torch.no_grad():
            for start in range(0, samples, batch_size):
                rows = torch.arange(start, start + batch_size).clamp(max=samples - 1)
                parts.append(output_tensors(graph(*(tensor[rows] for tensor in inputs))))
        return tuple(torch.cat(outputs)[:samples] for outputs in zip(*parts, strict=True))

    return predict


class _RoundToHalf(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds every operator's result to float16, in place where the operator works in place."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returns = [item.alias_info for item in func._schema.returns]
        if all(alias is None for alias in returns):
            return tree_map_only(Tensor, _to_half_and_back, result)
        if func._schema.is_mutable:
            tree_map_only(Tensor, lambda tensor: tensor.copy_(_to_half_and_back(tensor)), result)
        return result


def _to_half_and_back(tensor: Tensor) -> Tensor:
    return tensor.half().float() if tensor.dtype == torch.float32 else tensor
