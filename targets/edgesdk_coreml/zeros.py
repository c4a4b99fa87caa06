"""The zeros of sparse layers: chosen once, before a model is converted, simulated or compared."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from edgesdk.compress.sparsify import sparse_weight
from edgesdk.compressed import CompressedModel
from edgesdk.errors import UnsupportedModel
from edgesdk.scheme import KEPT_AS
from edgesdk_coreml.palettes import narrow_layers, output_axis


def with_zeros(model: CompressedModel) -> CompressedModel:
    """Return the model with half the weights of its sparse layers at zero; itself without any.

    coremltools masks what is exactly zero, so zeros chosen here are in the file what they are in
    PyTorch: folding a batch norm and rounding to float16 leave them zero. Weights that were zero
    before, or are too small for float16, are not stored either. Raises ``UnsupportedModel`` for a
    layer of zeros alone, of which a mask would leave nothing.
    """
    chosen = [path for path, _, scheme in narrow_layers(model) if scheme in KEPT_AS]
    if not chosen:
        return model
    own = replace(model, module=copy.deepcopy(model.module).eval())
    for path in chosen:
        layer = own.module.get_submodule(path)
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        if not bool(weight.half().any()):
            raise UnsupportedModel(
                f"layer {path!r} holds nothing but zeros in float16, so a mask leaves no weight",
                next_step="remove the layer, or give it another scheme in 'layer_schemes'",
            )
        with torch.no_grad():
            weight.copy_(sparse_weight(weight, axis=output_axis(layer)))
    return own
