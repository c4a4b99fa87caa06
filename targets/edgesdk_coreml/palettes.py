"""The float weights behind a package's tables, so that file and PyTorch have the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgesdk.compress.fold import folded_weights
from edgesdk.compress.palette import decoded_weight, palettise
from edgesdk.compressed import CompressedModel
from edgesdk.layer_format import Weighted, layer_format
from edgesdk.scheme import KEPT_AS, PALETTE_BITS, Scheme

TARGET_NAME = "coreml"
_KINDS: Mapping[str, str] = {
    "Linear": "linear", "Conv1d": "conv1d", "Conv2d": "conv2d", "Conv3d": "conv3d",
    "ConvTranspose1d": "conv_transpose1d", "ConvTranspose2d": "conv_transpose2d",
    "ConvTranspose3d": "conv_transpose3d",
}  # fmt: skip
# Rounding to float16 and folding a batch norm in another order, relative and absolute.
_SAME, _SAME_SUBNORMAL = 2.0**-10, 2.0**-24

Weights = NDArray[np.float32]
TableFunction = Callable[[NDArray[Any]], tuple[NDArray[np.float16], NDArray[np.uint8]]]


def narrow_layers(model: CompressedModel) -> Iterator[tuple[str, Any, Scheme]]:
    """Yield each layer with a weight: its path, module and the scheme that Core ML gives it."""
    for path, layer in model.module.named_modules():
        weight = getattr(layer, "weight", None)
        kind = _KINDS.get(type(layer).__name__)
        if kind is not None and isinstance(weight, nn.Parameter):
            weighted = Weighted(kind=kind, shape=tuple(weight.shape))
            asked = model.scheme_of(path)
            yield path, layer, layer_format(TARGET_NAME, weighted, asked).scheme


def output_axis(layer: nn.Module) -> int:
    """Return the dimension of a layer's weight that its output channels are."""
    return 1 if "Transpose" in type(layer).__name__ else 0


def palettise_layers(model: CompressedModel) -> None:
    """Give the module's palettised layers, in place, the weights that the package decodes to.

    A table is found for the weight that the file holds, so with the batch norm behind it folded in.
    Sparse layers have their zeros already (``with_zeros``).
    """
    chosen = [(path, layer, scheme) for path, layer, scheme in narrow_layers(model)
              if scheme in PALETTE_BITS]  # fmt: skip
    folded = folded_weights(model.module, model.example_inputs) if chosen else {}
    for path, layer, scheme in chosen:
        bits, axis = PALETTE_BITS[scheme], output_axis(layer)
        held, apart = folded.get(path), scheme in KEPT_AS
        with torch.no_grad():
            weight = decoded_weight(layer.weight, bits, axis=axis, folded=held, zeros_apart=apart)
            layer.weight.copy_(weight)


def table_functions(model: CompressedModel) -> dict[Scheme, TableFunction]:
    """Return for each palettised scheme what coremltools asks for a table and places.

    Where a weight of the program is one of the model's layers', rounded to float16, its table is
    found for the layer's own, as ``palettise_layers`` does; what the converter rewrote further has
    a table of its own. One function serves all layers, since layers may share a weight.
    """
    folded = folded_weights(model.module, model.example_inputs)
    held = []
    for path, layer, scheme in narrow_layers(model):
        if scheme in PALETTE_BITS:
            weight = folded.get(path, layer.weight).detach().cpu().float().numpy()
            held.append(np.swapaxes(weight, 0, output_axis(layer)))
    return {
        scheme: partial(_table_of, tuple(held), bits, scheme in KEPT_AS)
        for scheme, bits in PALETTE_BITS.items()
    }


def _table_of(
    held: Sequence[Weights], bits: int, zeros_apart: bool, weight: NDArray[Any]
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Return the table and the places of a weight whose output channels come first."""
    found = (own for own in held if own.shape == weight.shape
             and np.allclose(weight, own, rtol=_SAME, atol=_SAME_SUBNORMAL))  # fmt: skip
    palette = palettise(next(found, weight), bits, zeros_apart=zeros_apart)
    return palette.table, palette.places.reshape(-1)
