"""What options cost on every device of a fleet, corrected by what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgesdk.device import Runtime
from edgesdk.figure import Figure, FigureName, Figures, own_figures
from edgesdk.planner.options import Option
from edgesdk.planner.prediction import predict_costs
from edgesdk.planner.widths import WidthModel

WEIGHT_FIGURES: tuple[FigureName, ...] = ("size_bytes", "flash_bytes", "download_bytes")
_BYTE_FIGURES: tuple[FigureName, ...] = (*WEIGHT_FIGURES, "memory_bytes")


@dataclass(frozen=True, kw_only=True, eq=False)
class OptionCosts:
    """What options cost on each device, their bytes in proportion to the nearest one ``tried``."""

    model: WidthModel
    runtimes: Mapping[str, Runtime]
    tried: Mapping[Option, Figures]

    def of(self, option: Option) -> dict[str, Figures]:
        """Return an option's figures on the first device, and the others' own."""
        return {device: self._on(device, option) for device in self.runtimes}

    def _on(self, device: str, option: Option) -> Figures:
        costs = self._predicted(device, option)
        for name in _BYTE_FIGURES:
            nearest = self._nearest(option, name) if name in costs else None
            if nearest is None:
                continue
            # The file and what it is planned to hold are the same on every device.
            expected = self._predicted(device, nearest)[name].value
            if expected > 0:
                costs[name] = _times(costs[name], self.tried[nearest][name].value / expected)
        return costs

    def _predicted(self, device: str, option: Option) -> dict[FigureName, Figure]:
        graph, runtime = option.graph(self.model), self.runtimes[device]
        costs = predict_costs(graph, runtime, option.scheme, option.layer_schemes)
        return own_figures(costs) if device else costs

    def _nearest(self, option: Option, name: FigureName) -> Option | None:
        """Return the option of the same scheme whose figure is known and whose widths,
        departures, blocks and splits differ least; of equals the latest."""

        def distance(other: Option) -> float:
            pairs = zip(option.widths, other.widths, self.model.full, strict=True)
            differing = len(set(option.departures) ^ set(other.departures))
            differing += len(set(option.removed_blocks) ^ set(other.removed_blocks))
            differing += len(set(option.splits) ^ set(other.splits))
            return sum(abs(a - b) / full for a, b, full in pairs) + differing

        known = [
            other
            for other, figures in self.tried.items()
            if other.scheme == option.scheme and name in figures
        ]
        return min(reversed(known), key=distance, default=None)


def _times(figure: Figure, ratio: float) -> Figure:
    assert figure.low is not None
    assert figure.high is not None
    return replace(
        figure,
        value=figure.value * ratio,
        low=figure.low * ratio,
        high=figure.high * ratio,
        source=f"{figure.source}, corrected",
    )
