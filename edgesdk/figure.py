"""A figure: one number about an artifact, how far it may be off, and how it came to be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

Standing = Literal["measured", "verified", "interpreted", "predicted"]

FigureName = Literal[
    "latency_ms",
    "memory_bytes",
    "size_bytes",
    "flash_bytes",
    "download_bytes",
    "energy_mj",
    "accuracy",
    "accuracy_drop",
]

TITLES: Mapping[FigureName, str] = {
    "latency_ms": "Latency",
    "memory_bytes": "Memory",
    "size_bytes": "File size",
    "download_bytes": "Download",
    "flash_bytes": "Flash",
    "energy_mj": "Energy",
    "accuracy": "Accuracy",
    "accuracy_drop": "Accuracy drop",
}
"""Every figure's title, in the order in which figures are shown."""

DEVICE_FIGURES: tuple[FigureName, ...] = ("latency_ms", "memory_bytes", "flash_bytes", "energy_mj")
"""Figures of one file that differ from device to device, or that each device limits."""

Figures = Mapping[FigureName, "Figure"]
"""What is known of one artifact; a name that is absent is not known."""

# Best first: a condition is judged by the best standing there is.
STANDINGS: tuple[Standing, ...] = ("measured", "verified", "interpreted", "predicted")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A value with its standing.

    ``measured``: clocked or metered. ``verified``: accuracy on the artifact's own runtime, real
    bytes, a runtime's own arena. ``interpreted``: accuracy from evaluating the emitted file by
    other means. ``predicted``: all else; ``low`` and ``high`` then bound a 90 % interval.
    ``source`` says in a few words where the number came from.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    value: float
    standing: Standing
    low: float | None = None
    high: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.standing == "predicted" and (self.low is None or self.high is None):
            raise ValueError("a predicted figure states its interval")

    @property
    def upper(self) -> float:
        """The value a limit is compared with: the interval's upper end for a prediction."""
        if self.standing == "predicted" and self.high is not None:
            return self.high
        return self.value


def predicted(value: float, *, error_factor: float, source: str) -> Figure:
    """Return a prediction whose 90 % interval is ``[value / error_factor, value * error_factor]``.

    The factor comes from the device profile, which says how it was obtained.
    """
    if error_factor < 1:
        raise ValueError(f"error_factor is at least 1, not {error_factor}")
    return Figure(
        value=value,
        standing="predicted",
        low=value / error_factor,
        high=value * error_factor,
        source=source,
    )


def best_figure(name: FigureName, sections: list[Figures]) -> Figure | None:
    """Return the figure of that name with the best standing, or None if none is known."""
    found = [section[name] for section in sections if name in section]
    return min(found, key=lambda figure: STANDINGS.index(figure.standing), default=None)


def own_figures(figures: Figures) -> dict[FigureName, Figure]:
    """Return the figures that a device has for itself: not the file's bytes nor its accuracy."""
    return {name: figures[name] for name in DEVICE_FIGURES if name in figures}
