"""AdaRound: weights rounded up or down so that each layer computes what it did.

Given:   y = f(layer(x, w))                          f: the clamp behind the layer, x: in float
Result:  w' on the integer grid of w, each weight one of its two neighbours there, so that
         f(layer(x', w')) is closest to y in the mean square; x' comes from layers rounded before

Nagel, Amjad, van Baalen, Louizos, Blankevoort, "Up or down? Adaptive rounding for post-training
quantization", 2020: the relaxation is eq. 21 to 24, the asymmetric reconstruction eq. 25.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgesdk.compress.columns import Columns, columns_of
from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.fold import along, fold_batch_norms
from edgesdk.compress.lockstep import Meeting, walk
from edgesdk.compress.rounding import Rounding, weight_scales
from edgesdk.plan import AdaRound
from edgesdk.task import Tensors

_LOW, _HIGH = -0.1, 1.1  # the stretched sigmoid's ends, eq. 23
_STEEP, _FLAT = 20.0, 2.0  # the regulariser's exponent at the start and at the end
_FREE_SHARE = 0.2  # of the iterations run before the regulariser comes in
_PULL = 1.0  # of the regulariser, in units of nearest rounding's error
POSITIONS_AT_ONCE = 256
_ON_GRID = 1e-3  # steps; a weight this close to an integer has no choice

OnLayer = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rounded:
    """``error`` is each layer's error as a share of that of nearest rounding on the calibration
    data; ``left_out`` says of the other layers why they keep nearest rounding."""

    module: nn.Module
    error: Mapping[str, float]
    left_out: Mapping[str, str]


def adaround(
    module: nn.Module,
    example_inputs: Tensors,
    calibration: Sequence[Tensors],
    step: AdaRound,
    rounding: Rounding,
    *,
    seed: int,
    on_layer: OnLayer | None = None,
) -> Rounded:
    """Return a copy of the module, batch norms folded, whose weights lie on their integer grid.

    The largest weight of a channel keeps its value, so the target's own quantizer finds the same
    scales and, rounding to nearest, exactly the integers chosen here. A channel whose choice
    turns out worse than nearest rounding on the calibration data keeps that. Raises ``TaskError``
    without calibration data.
    """
    exact = fold_batch_norms(module, example_inputs)
    rounded = FakeQuantized(copy.deepcopy(exact), example_inputs, rounding)
    rounded.observe(calibration)
    count = len(rounded.programs.of(rounded.network, example_inputs)[0].layers)
    error: dict[str, float] = {}
    left_out: dict[str, str] = {}

    def choose(meeting: Meeting) -> None:
        name, layer = meeting.layer.name, meeting.layer.find(rounded.network)
        random = torch.Generator().manual_seed(seed + len(error) + len(left_out))
        columns = columns_of(meeting, step.positions, random)
        if isinstance(columns, str):
            left_out[name] = columns
        else:
            weight, share = _choose(layer.weight.detach(), columns, step, rounding, random)
            layer.weight.copy_(weight)
            error[name] = share
        if on_layer is not None:
            on_layer(len(error) + len(left_out), count, name)

    walk(exact, rounded, calibration, choose)
    return Rounded(module=rounded.network, error=error, left_out=left_out)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Choice:
    """A layer's weights between two integers each, all ``[G, O, K]``: ``down`` is the lower one,
    ``rest`` how far above it the weight lies; ``fixed`` ones lie on an integer already."""

    columns: Columns
    scale: Tensor
    down: Tensor
    rest: Tensor
    fixed: Tensor
    largest: int

    def weight(self, up: Tensor) -> Tensor:
        """Return the weight with this share of a step added to the lower integers."""
        shares = torch.where(self.fixed, 0.0, up)
        return (self.down + shares).clamp(-self.largest, self.largest) * self.scale

    @property
    def nearest(self) -> Tensor:
        """What rounding to nearest adds."""
        return (self.rest >= 0.5).float()


def _choose(
    weight: Tensor, columns: Columns, step: AdaRound, rounding: Rounding, random: torch.Generator
) -> tuple[Tensor, float]:
    """Return the weight on its grid, and its error as a share of nearest rounding's."""
    scales = along(weight_scales(weight, 0, rounding), 0, weight)
    steps = columns.arrange(weight / scales)
    fixed = (steps - steps.round()).abs() < _ON_GRID
    down = torch.where(fixed, steps.round(), steps.floor())
    choice = _Choice(
        columns=columns,
        scale=columns.arrange(scales.expand_as(weight)),
        down=down,
        rest=(steps - down).clamp(0, 1),
        fixed=fixed,
        largest=rounding.largest,
    )
    nearest = choice.weight(choice.nearest)
    worst = columns.error(nearest)
    if float(worst.sum()) == 0 or bool(fixed.all()):
        return nearest.reshape(weight.shape), 1.0
    with torch.enable_grad():
        up = _train(choice, step, float(worst.mean()), random)
    chosen = choice.weight(up)
    found = columns.error(chosen)
    kept = torch.where((found < worst)[..., None], chosen, nearest)
    share = float(torch.minimum(found, worst).sum() / worst.sum())
    return kept.reshape(weight.shape), share


def _train(choice: _Choice, step: AdaRound, unit: float, random: torch.Generator) -> Tensor:
    """Return 1 for every weight that goes up and 0 for every one that goes down.

    ``unit`` is the error of nearest rounding, in which the loss is counted.
    """
    rest = choice.rest.clamp(1e-3, 1 - 1e-3)
    logits = -torch.log((_HIGH - _LOW) / (rest - _LOW) - 1)
    logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=step.learning_rate)
    free, loose = int(_FREE_SHARE * step.iterations), ~choice.fixed
    for iteration in range(step.iterations):
        up = _relaxed(logits)
        rows = torch.randint(choice.columns.positions, (POSITIONS_AT_ONCE,), generator=random)
        loss = choice.columns.error(choice.weight(up), rows).mean() / unit
        if iteration >= free:
            progress = (iteration - free) / max(1, step.iterations - free)
            exponent = _FLAT + 0.5 * (_STEEP - _FLAT) * (1 + math.cos(math.pi * progress))
            loss = loss + _PULL * (1 - (2 * up - 1).abs().pow(exponent))[loose].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (_relaxed(logits.detach()) >= 0.5).float()


def _relaxed(logits: Tensor) -> Tensor:
    """Return the rectified sigmoid of Louizos et al. 2018, eq. 23 of the paper."""
    return (torch.sigmoid(logits) * (_HIGH - _LOW) + _LOW).clamp(0, 1)
