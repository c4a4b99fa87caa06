"""Simulate a number format in float PyTorch, to estimate what it costs before any emission."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgesdk.scheme import Scheme
from edgesdk.task import Tensors

_QUANTIZED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.ConvTranspose1d, nn.ConvTranspose2d)


def simulate(module: nn.Module, scheme: Scheme, calibration: Sequence[Tensors]) -> nn.Module:
    """Return a copy that computes with the scheme's rounding; ``fp32`` returns an exact copy.

    ``fp16`` rounds every weight to float16. ``int8`` rounds weights per output channel
    (symmetric) and the inputs of every convolution and linear layer per tensor (affine), with
    ranges observed on ``calibration``. It ranks options; the emitted file is what is judged.
    """
    simulated = copy.deepcopy(module).eval()
    if scheme == "fp16":
        for parameter in simulated.parameters():
            parameter.data = parameter.data.half().float()
    if scheme == "int8":
        _round_activations(simulated, calibration)
        _round_weights(simulated)
    return simulated


def _quantized_layers(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, _QUANTIZED)]


def _round_weights(module: nn.Module) -> None:
    for layer in _quantized_layers(module):
        weight: Tensor = layer.weight  # type: ignore[assignment]
        axis = 1 if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d) else 0
        others = [d for d in range(weight.dim()) if d != axis]
        scale = weight.detach().abs().amax(dim=others, keepdim=True).clamp_min(1e-12) / 127
        weight.data = (weight.data / scale).round().clamp(-127, 127) * scale


def _round_activations(module: nn.Module, calibration: Sequence[Tensors]) -> None:
    """Observe each layer's input range, then hook its rounding in front of the layer."""
    ranges: dict[nn.Module, tuple[float, float]] = {}

    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        low, high = ranges.get(layer, (0.0, 0.0))
        ranges[layer] = (min(low, float(inputs[0].min())), max(high, float(inputs[0].max())))

    layers = _quantized_layers(module)
    handles = [layer.register_forward_pre_hook(observe) for layer in layers]
    with torch.no_grad():
        for inputs in calibration:
            module(*inputs)
    for handle in handles:
        handle.remove()

    for layer in layers:
        low, high = ranges.get(layer, (0.0, 0.0))
        layer.register_forward_pre_hook(partial(_fake_quantize, low, high))


def _fake_quantize(
    low: float, high: float, _layer: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Round a layer's first input to 256 steps of its range; bound by value, so copies keep it."""
    scale = max((high - low) / 255, 1e-12)
    zero_point = round(-128 - low / scale)
    integers = (inputs[0] / scale).round().add(zero_point).clamp(-128, 127)
    return ((integers - zero_point) * scale, *inputs[1:])
