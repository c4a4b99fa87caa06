"""How far a changed model's outputs are from the original's: the unit expected loss is in."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from edgesdk.compress.distil_loss import class_dimension
from edgesdk.task import OutputSpec, Tensors, output_tensors
from edgesdk.top_class import moved_samples


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """``loss``: expected loss increase, in nats for logits, as relative squared error otherwise,
    summed over outputs; the largest float where an output is not finite, so that it ranks last.
    ``disagreement``: share of samples whose largest logit moved, None where no output is logits.
    """

    loss: float
    disagreement: float | None


@torch.no_grad()
def run_batches(module: nn.Module, batches: Sequence[Tensors]) -> Tensors:
    """Return the module's outputs over all batches, concatenated ``[N, ...]`` per output."""
    collected = [output_tensors(module(*inputs)) for inputs in batches]
    return tuple(torch.cat(parts) for parts in zip(*collected, strict=True))


def measure_divergence(
    original: Tensors, changed: Tensors, outputs: Sequence[OutputSpec]
) -> Divergence:
    """Return the divergence of ``changed`` from ``original`` outputs, ``[N, ...]`` each.

    For logits the mean KL(original || changed) over softmax: to first order the increase of
    cross-entropy where the original's probabilities are calibrated, and it needs no labels.
    """
    loss = 0.0
    for wanted, got, spec in zip(original, changed, outputs, strict=True):
        classes = class_dimension(spec, wanted, None) if spec.kind == "logits" else None
        if classes is not None:
            loss += float(_divergences(wanted, got, classes).mean())
        else:
            energy = float(wanted.double().square().mean())
            loss += float((wanted.double() - got.double()).square().mean()) / max(energy, 1e-12)
    moved = moved_samples(original, changed, outputs)
    share = None if moved is None else float(moved.double().mean())
    finite = math.isfinite(loss) and all(bool(torch.isfinite(got).all()) for got in changed)
    return Divergence(loss=max(loss, 0.0) if finite else sys.float_info.max, disagreement=share)


def _divergences(original: Tensor, changed: Tensor, classes: int) -> Tensor:
    """Return KL(original || changed) at every position, the class dimension summed away."""
    wanted = F.log_softmax(original.double(), classes)
    got = F.log_softmax(changed.double(), classes)
    return F.kl_div(got, wanted, log_target=True, reduction="none").sum(classes)
