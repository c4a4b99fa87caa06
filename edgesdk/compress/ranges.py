"""The grids of activations, found on calibration data as the targets' calibration finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from edgesdk.compress.grids import Grids
from edgesdk.compress.program import Program
from edgesdk.compress.rounding import (
    INT8_HIGHEST,
    INT8_LOWEST,
    XNNPACK,
    Quantizer,
    activation_grid,
)
from edgesdk.task import Tensors


class _Ranging(Protocol):
    def see(self, values: Tensor) -> None: ...

    def grid(self, quantizer: Quantizer) -> tuple[Tensor, Tensor]: ...


def portions(calibration: Sequence[Tensors], size: int) -> Iterator[Tensors]:
    """Yield all samples in batches of exactly ``size``; the last one is filled from the first."""
    joined = tuple(torch.cat(parts) for parts in zip(*calibration, strict=True))
    samples = joined[0].shape[0]
    for start in range(0, samples, size):
        rows = torch.arange(start, start + size) % samples
        yield tuple(tensor[rows] for tensor in joined)


def observe_grids(
    network: nn.Module,
    program_of: Callable[[Tensors], tuple[Program, Grids]],
    calibration: Sequence[Tensors],
    quantizer: Quantizer,
) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point of every grid, two tensors ``[grids]``.

    The network runs in float. What a histogram makes of its values depends on how they come, and
    on their last digits: a batch of 64 sums in another order than 64 of one sample, and a bin
    further is a scale 1 % further. So the batches must be those that the target sees.
    """
    seen: dict[int, _Ranging] = {}
    count = 0
    with torch.no_grad():
        for batch in calibration:
            program, grids = program_of(batch)
            count = grids.count
            program.start(network, batch, result=_watch(grids, seen, quantizer)).finish()
    scale, zero_point = torch.ones(count), torch.zeros(count, dtype=torch.int32)
    for number, ranging in seen.items():
        scale[number], zero_point[number] = ranging.grid(quantizer)
    return scale, zero_point


def _watch(
    grids: Grids, seen: dict[int, _Ranging], quantizer: Quantizer
) -> Callable[[fx.Node, Any], Any]:
    def watch(node: fx.Node, value: Any) -> Any:
        number = grids.observed.get(node)
        if number is not None:
            if number not in seen:
                by_histogram = quantizer.observer == "histogram"
                seen[number] = _Histogram() if by_histogram else _LeastAndGreatest()
            for _ in range(grids.times(node)):
                seen[number].see(value.detach().cpu())
        return value

    return watch


class _LeastAndGreatest:
    """The least and the greatest value seen."""

    def __init__(self) -> None:
        self._low, self._high = torch.tensor(torch.inf), torch.tensor(-torch.inf)

    def see(self, values: Tensor) -> None:
        self._low = torch.minimum(self._low, values.min())
        self._high = torch.maximum(self._high, values.max())

    def grid(self, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
        return activation_grid(self._low, self._high, quantizer)


class _Histogram:
    """torchao's histogram observer, the one that XNNPACK's quantizer asks for."""

    def __init__(self) -> None:
        from torchao.quantization.pt2e.observer import HistogramObserver

        self._observer = HistogramObserver(
            dtype=torch.int8,
            qscheme=torch.per_tensor_affine,
            quant_min=INT8_LOWEST,
            quant_max=INT8_HIGHEST,
            eps=XNNPACK.smallest_scale,
        )

    def see(self, values: Tensor) -> None:
        self._observer(values)

    def grid(self, _quantizer: Quantizer) -> tuple[Tensor, Tensor]:
        scale, zero_point = self._observer.calculate_qparams()
        return scale.squeeze(), zero_point.squeeze()
