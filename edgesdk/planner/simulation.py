"""Simulate number formats in float PyTorch, to estimate what they cost before any emission.

Each layer is rounded in the scheme that its target gives it (``edgesdk.layer_format``): weights
once, what it reads by a hook in front of it. It ranks options; the emitted file is what is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgesdk.compress.palette import decoded_weight
from edgesdk.compress.shared_copy import shared_copy
from edgesdk.compress.sparsify import sparse_weight
from edgesdk.layer_format import LayerSchemes, Weighted, layer_format
from edgesdk.scheme import (
    CALIBRATED_SCHEMES,
    DYNAMIC_SCHEMES,
    GROUP_SIZE,
    INT4_SCHEMES,
    KEPT_AS,
    PALETTE_BITS,
    Scheme,
)
from edgesdk.task import Tensors

_KINDS: Mapping[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LEAST_SCALE = 1e-12
_INT8_STEPS = 127
_INT16_STEPS = 32767
# A group's largest weight in steps, and what its scale is rounded to. ExecuTorch uses all of -8 to
# 7 (torchao's symmetric mapping divides the range by 15) and keeps bfloat16; the others -7 to 7.
_INT4_GROUPS: Mapping[str, tuple[float, torch.dtype]] = {"executorch": (7.5, torch.bfloat16)}
_OTHER_INT4_GROUPS = (7.0, torch.float16)

Hook = Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]


def simulate(
    module: nn.Module, scheme: Scheme, calibration: Sequence[Tensors], *, target: str,
    layer_schemes: LayerSchemes = MappingProxyType({}),
    folded: Mapping[str, Tensor] = MappingProxyType({}),
) -> nn.Module:  # fmt: skip
    """Return a copy that computes with the scheme's rounding; layers in float32 share weights.

    ``fp16`` rounds every weight to float16. ``int8`` rounds weights per output channel
    (symmetric) and the inputs of every convolution and linear layer per tensor (affine), with
    ranges observed on ``calibration``; ``w8a16`` does the same with inputs of 16 bits, symmetric
    around zero. Dynamic schemes round inputs with the range found at run
    time: a row's for linear layers, a sample's for convolutions. int4 weights have a scale for
    each group of 32 inputs. ``w8`` and ``w4`` round weights alone, ``lut8`` to ``lut4`` to a table
    that all channels of a layer share, so with their batch norms in them: ``folded`` are such
    weights by their layer's name (``compress.fold.folded_weights``). Sparse schemes do so to
    weights of which the smaller half of each channel is zero. ``layer_schemes`` names (by
    module path) the layers that have another scheme than the network; what ``target`` cannot give
    a layer, the layer gets as the target gives it.
    """
    formats = _formats(module, scheme, layer_schemes, target)
    rounded = [""] if scheme == "fp16" else [path for path in formats if formats[path] != "fp32"]
    simulated = shared_copy(module, rounded).eval()
    if scheme == "fp16":
        _halve(simulated)
    layers = {path: simulated.get_submodule(path) for path in formats}
    static = {layers[path]: own for path, own in formats.items() if own in CALIBRATED_SCHEMES}
    _round_static_inputs(simulated, static, calibration)
    for path, own in formats.items():
        layer = layers[path]
        if own == "fp16" and scheme != "fp16":
            _halve(layer)
        elif own not in ("fp32", "fp16"):
            _round_weight(layer, own, target, folded.get(path))
        if own in DYNAMIC_SCHEMES:
            layer.register_forward_pre_hook(_dynamic_rounding(layer))
    return simulated


def _formats(
    module: nn.Module, scheme: Scheme, layer_schemes: LayerSchemes, target: str
) -> dict[str, Scheme]:
    """Return the scheme that each layer with weights gets, by its path."""
    found: dict[str, Scheme] = {}
    for path, layer in module.named_modules():
        kind = next((name for known, name in _KINDS.items() if isinstance(layer, known)), None)
        if kind is not None:
            groups = getattr(layer, "groups", 1)
            weighted = Weighted(kind=kind, shape=tuple(_weight(layer).shape), groups=groups)
            asked = layer_schemes.get(path, scheme)
            found[path] = layer_format(target, weighted, asked).scheme
    return found


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _halve(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data = parameter.data.half().float()


def _round_weight(layer: nn.Module, scheme: Scheme, target: str, folded: Tensor | None) -> None:
    weight = _weight(layer)
    axis = 1 if isinstance(layer, _TRANSPOSED) else 0
    with torch.no_grad():
        is_sparse = scheme in KEPT_AS
        if is_sparse:
            weight.data = sparse_weight(weight, axis=axis)
            folded = None if folded is None else folded * (weight != 0)
        if scheme in PALETTE_BITS:
            bits = PALETTE_BITS[scheme]
            weight.data = decoded_weight(
                weight, bits, axis=axis, folded=folded, zeros_apart=is_sparse
            )
        elif scheme in INT4_SCHEMES:
            weight.data = _in_groups(weight, *_INT4_GROUPS.get(target, _OTHER_INT4_GROUPS))
        else:
            weight.data = _per_channel(weight, axis)


def _per_channel(weight: Tensor, axis: int) -> Tensor:
    others = [d for d in range(weight.dim()) if d != axis]
    scale = weight.abs().amax(dim=others, keepdim=True).clamp_min(_LEAST_SCALE) / _INT8_STEPS
    return (weight / scale).round().clamp(-_INT8_STEPS, _INT8_STEPS) * scale


def _in_groups(weight: Tensor, steps: float, kept: torch.dtype) -> Tensor:
    """Round ``[C_out, C_in, *K]``, 32 inputs of an output channel (and all taps) to a scale.

    Inputs that do not divide so, which a target from elsewhere may take, have one scale together.
    """
    inputs = weight.shape[1]
    size = GROUP_SIZE if inputs % GROUP_SIZE == 0 else inputs
    grouped = weight.reshape(weight.shape[0], -1, size, *weight.shape[2:])
    within = list(range(2, grouped.dim()))
    scale = (grouped.abs().amax(dim=within, keepdim=True) / steps).to(kept).to(weight.dtype)
    scale = scale.clamp_min(_LEAST_SCALE)
    rounded = (grouped / scale).round().clamp(-int(steps + 0.5), int(steps)) * scale
    return rounded.reshape(weight.shape)


def _round_static_inputs(
    module: nn.Module, layers: Mapping[nn.Module, Scheme], calibration: Sequence[Tensors]
) -> None:
    """Observe each layer's input range, then hook its rounding in front of the layer."""
    ranges: dict[nn.Module, tuple[float, float]] = {}

    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        low, high = ranges.get(layer, (0.0, 0.0))
        ranges[layer] = (min(low, float(inputs[0].min())), max(high, float(inputs[0].max())))

    if not layers:
        return
    handles = [layer.register_forward_pre_hook(observe) for layer in layers]
    with torch.no_grad():
        for inputs in calibration:
            module(*inputs)
    for handle in handles:
        handle.remove()

    for layer, scheme in layers.items():
        low, high = ranges.get(layer, (0.0, 0.0))
        rounding = _fake_quantize if scheme == "int8" else _fake_quantize_int16
        layer.register_forward_pre_hook(partial(rounding, low, high))


def _fake_quantize(
    low: float, high: float, _layer: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Round a layer's first input to 256 steps of its range; bound by value, so copies keep it."""
    return (_affine(inputs[0], torch.tensor(low), torch.tensor(high)), *inputs[1:])


def _fake_quantize_int16(
    low: float, high: float, _layer: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Round a layer's first input to steps of its greatest magnitude over 32767, clipped there."""
    scale = max(-low, high, _INT16_STEPS * _LEAST_SCALE) / _INT16_STEPS
    rounded = (inputs[0] / scale).round().clamp(-_INT16_STEPS - 1, _INT16_STEPS) * scale
    return (rounded, *inputs[1:])


def _dynamic_rounding(layer: nn.Module) -> Hook:
    return _round_rows if isinstance(layer, nn.Linear) else _round_samples


def _round_rows(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Round each row of a linear layer's input to 256 steps of the row's own range."""
    return (_with_range_over(inputs[0], [inputs[0].dim() - 1]), *inputs[1:])


def _round_samples(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Round each sample of a convolution's input to 256 steps of the sample's own range."""
    return (_with_range_over(inputs[0], list(range(1, inputs[0].dim()))), *inputs[1:])


def _with_range_over(values: Tensor, axes: list[int]) -> Tensor:
    low = values.amin(axes, keepdim=True).clamp(max=0)
    high = values.amax(axes, keepdim=True).clamp(min=0)
    return _affine(values, low, high)


def _affine(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round to 256 steps between two ends around zero, which stays exact."""
    scale = ((high - low) / 255).clamp_min(_LEAST_SCALE)
    zero_point = (-128 - low / scale).round()
    integers = (values / scale).round().add(zero_point).clamp(-128, 127)
    return (integers - zero_point) * scale
