"""How far a changed model's outputs are from the original's: the unit expected loss is in."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from edgesdk.task import OutputSpec, Tensors, output_tensors


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
    moved: Tensor | None = None
    for wanted, got, spec in zip(original, changed, outputs, strict=True):
        if spec.kind == "logits":
            loss += float(
                F.kl_div(
                    F.log_softmax(got.double(), -1),
                    F.log_softmax(wanted.double(), -1),
                    log_target=True,
                    reduction="none",
                )
                .sum(-1)
                .mean()
            )
            differs = wanted.argmax(-1) != got.argmax(-1)
            differs = differs.reshape(len(differs), -1).any(-1)
            moved = differs if moved is None else moved | differs
        else:
            energy = float(wanted.double().square().mean())
            loss += float((wanted.double() - got.double()).square().mean()) / max(energy, 1e-12)
    share = None if moved is None else float(moved.double().mean())
    finite = math.isfinite(loss) and all(bool(torch.isfinite(got).all()) for got in changed)
    return Divergence(loss=max(loss, 0.0) if finite else sys.float_info.max, disagreement=share)
