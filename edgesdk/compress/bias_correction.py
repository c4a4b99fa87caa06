"""Bias correction: the mean error that rounding leaves in a layer's channels is taken out again.

Given:   y = layer(x, w, b)                z = layer(x', round(w), b)     x' from rounded layers
Result:  b + mean(y - z), one mean for each output channel over calibration samples and positions

Rounding moves the mean of what a channel computes, most where few weights make a channel (depthwise
convolutions); the next layers take the shift for signal. Nagel, van Baalen, Blankevoort, Welling,
"Data-free quantization through weight equalization and bias correction", 2019, section 4.2 and, for
the empirical form with calibration data used here, appendix D.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.compress.lockstep import Meeting, walk
from edgesdk.compress.rounding import Rounding
from edgesdk.task import Tensors


def correct_biases(
    module: nn.Module,
    example_inputs: Tensors,
    calibration: Sequence[Tensors],
    rounding: Rounding,
) -> nn.Module:
    """Return a copy of the module, batch norms folded, with corrected biases; weights stay.

    Layers are corrected in order, each behind those already corrected. Raises ``TaskError``
    without calibration data.
    """
    exact = fold_batch_norms(module, example_inputs)
    rounded = FakeQuantized(copy.deepcopy(exact), example_inputs, rounding)
    rounded.observe(calibration)

    def correct(meeting: Meeting) -> None:
        error = meeting.exact_result() - meeting.rounded_result()
        channels = error.dim() - 1 if meeting.layer.is_linear else 1
        others = [d for d in range(error.dim()) if d != channels]
        bias = meeting.layer.find(rounded.network).bias
        bias.copy_(bias + error.mean(dim=others))

    with torch.no_grad():
        walk(exact, rounded, calibration, correct)
    return rounded.network
