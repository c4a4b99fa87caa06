"""Pooling windows cut to what they cover: the same numbers, and nothing read that is not there.

``nn.AvgPool2d(640, ceil_mode=True)`` on 3x3 images is how some published networks (EfficientNet in
transformers) write global pooling. Runtimes walk through the whole window for every output, and may
take longer for it than for the rest of the network together.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgesdk.task import Tensors

_DIMENSIONS: Mapping[type[nn.Module], int] = {
    nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3,
    nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3,
}  # fmt: skip


def fit_windows(module: nn.Module, example_inputs: Tensors) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module without pooling windows larger than what they pool, and whose those were.

    It is the module itself where there are none, else a copy in eval mode. In a dimension where the
    window is larger than the padded input there is one output, of everything, so window and stride
    can be as large as the input. A layer called with inputs of several sizes stays as it is.
    """
    if not any(type(layer) in _DIMENSIONS for layer in module.modules()):
        return module, ()
    fitted = copy.deepcopy(module).eval()
    names = []
    for name, sizes in _padded_sizes(fitted, example_inputs).items():
        layer: Any = fitted.get_submodule(name)
        window = _each(layer.kernel_size, layer)
        if len(sizes) == 1 and _each(getattr(layer, "dilation", 1), layer) == (1,) * len(window):
            pairs = list(zip(window, *sizes, strict=True))
            if any(width > size for width, size in pairs):
                strides = zip(_each(layer.stride, layer), pairs, strict=True)
                layer.stride = tuple(s if w <= size else size for s, (w, size) in strides)
                layer.kernel_size = tuple(map(min, pairs))
                names.append(name)
    return (fitted, tuple(names)) if names else (module, ())


def _padded_sizes(module: nn.Module, inputs: Tensors) -> dict[str, set[tuple[int, ...]]]:
    """Return the sizes of what each pooling layer pools, its padding included, over all calls."""
    found: dict[str, set[tuple[int, ...]]] = {}

    def note(name: str, layer: Any, arguments: tuple[Tensor, ...]) -> None:
        sizes = arguments[0].shape[-_DIMENSIONS[type(layer)] :]
        paddings = _each(layer.padding, layer)
        padded = tuple(size + 2 * p for size, p in zip(sizes, paddings, strict=True))
        found.setdefault(name, set()).add(padded)

    handles = [
        layer.register_forward_pre_hook(partial(note, name))
        for name, layer in module.named_modules()
        if type(layer) in _DIMENSIONS
    ]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _each(value: int | tuple[int, ...], layer: nn.Module) -> tuple[int, ...]:
    """Return a number of a layer for each of its dimensions."""
    count = _DIMENSIONS[type(layer)]
    given = value if isinstance(value, tuple) else (value,)
    return given * count if len(given) == 1 else given
