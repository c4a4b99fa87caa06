"""A budget: the conditions an artifact must meet, all together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

from pydantic import ConfigDict

from edgesdk.errors import UsageError, near_names
from edgesdk.figure import Figure, FigureName, Figures, best_figure

Dimension = Literal["time", "bytes", "energy", "fraction"]

# Decimal prefixes are powers of 1000 and binary ones powers of 1024 (IEC 80000-13). The micro
# sign and the Greek letter look the same and keyboards give either.
_UNITS: Mapping[Dimension, Mapping[str, float]] = {
    "time": {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ns": 1e-6},
    "bytes": {
        "B": 1, "KB": 1e3, "kB": 1e3, "MB": 1e6, "GB": 1e9,
        "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
    },
    "energy": {"J": 1e3, "mJ": 1.0, "uJ": 1e-3, "µJ": 1e-3, "μJ": 1e-3},
    "fraction": {"": 1.0, "%": 0.01},
}  # fmt: skip
_EXAMPLE: Mapping[Dimension, str] = {
    "time": "8ms, 0.5s or 25% of the baseline",
    "bytes": "150KB, 1.5MiB or 25% of the baseline",
    "energy": "3mJ, 800uJ or 25% of the baseline",
    "fraction": "1% or 0.01 (of the metric's range)",
}
_NUMBER = re.compile(r"^\s*(?P<number>[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)\s*(?P<unit>\S*)\s*$")


@dataclass(frozen=True, kw_only=True)
class Relative:
    """A limit as a fraction of the baseline: the original emitted as float, same target, device."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    fraction: float


Limit = float | Relative

DEFAULT_MAX_DROP = 0.01
"""One point of the metric: what the fastest plan may lose where nothing at all was asked."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper limits; None means unlimited. All conditions hold together.

    - ``latency_ms``: median warm inference in milliseconds, batch as in the task's example inputs,
      the device's default unit and threads, without pre- and post-processing.
    - ``memory_bytes``: peak RAM; weights count only where the runtime holds them in RAM.
    - ``size_bytes``: the sum of the runtime's files, without manifest and golden vectors.
    - ``download_bytes``: the same files after entropy coding.
    - ``energy_mj``: millijoules per inference.
    - ``max_drop``: evaluate(original) - evaluate(artifact), as a fraction of the metric's range;
      never relative, negative means the artifact must be better.

    Raises ``UsageError`` when a limit is not a positive finite number (``max_drop`` may be
    negative or zero).
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    latency_ms: Limit | None = None
    memory_bytes: Limit | None = None
    size_bytes: Limit | None = None
    download_bytes: Limit | None = None
    energy_mj: Limit | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is None:
                continue
            number = limit.fraction if isinstance(limit, Relative) else limit
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise UsageError(
                    f"{field.name}={limit!r} is not a number",
                    expected=f"a number in the unit its name carries ({field.name})",
                    next_step='use Budget.parse(latency="8ms", size="150KB") for text with units',
                )
            positive = number > 0 or field.name == "max_drop"
            if not math.isfinite(number) or not positive:
                raise UsageError(
                    f"{field.name}={number!r} cannot be a limit",
                    expected="a finite number above zero",
                )
            if field.name == "max_drop" and not -1 <= number <= 1:
                raise UsageError(
                    f"max_drop={number!r} is outside the metric's whole range",
                    expected="a fraction between -1 and 1; one point of accuracy is 0.01 or '1%'",
                )

    @property
    def is_empty(self) -> bool:
        """True when no condition at all is set."""
        return all(getattr(self, field.name) is None for field in fields(self))

    @classmethod
    def parse(
        cls,
        *,
        latency: str | None = None,
        memory: str | None = None,
        size: str | None = None,
        download: str | None = None,
        energy: str | None = None,
        max_drop: str | None = None,
    ) -> Budget:
        """Return the budget that such texts mean: ``latency="8ms", size="25%", max_drop="1%"``.

        Raises ``UsageError`` for a number without unit, a wrong unit or a number that cannot be.
        """
        return cls(
            latency_ms=_optional_limit("--latency", latency, "time"),
            memory_bytes=_optional_limit("--memory", memory, "bytes"),
            size_bytes=_optional_limit("--size", size, "bytes"),
            download_bytes=_optional_limit("--download", download, "bytes"),
            energy_mj=_optional_limit("--energy", energy, "energy"),
            max_drop=None if max_drop is None else _parse("--max-drop", max_drop, "fraction"),
        )


def parse_share(text: str) -> float:
    """Return the share that ``--min-delegated`` means: ``90%`` or ``0.9``."""
    return _parse("--min-delegated", text, "fraction")


def _optional_limit(flag: str, text: str | None, dimension: Dimension) -> Limit | None:
    if text is None:
        return None
    if text.strip().endswith("%"):
        return Relative(fraction=_parse(flag, text, "fraction"))
    return _parse(flag, text, dimension)


def _parse(flag: str, text: str, dimension: Dimension) -> float:
    match = _NUMBER.match(text)
    expected = f"a number with a unit, such as {_EXAMPLE[dimension]}"
    if match is None:
        raise UsageError(f"{flag} {text!r} is not a number with a unit", expected=expected)
    unit, units = match["unit"], _UNITS[dimension]
    if unit not in units:
        near = _near_units(unit, units)
        known = ", ".join(name for name in units if name)
        missing = "has no unit" if not unit else f"has the unknown unit {unit!r}"
        raise UsageError(
            f"{flag} {text!r} {missing}",
            expected=expected,
            next_step=f"use {' or '.join(near)}" if near else f"use one of {known}",
        )
    return float(match["number"]) * units[unit]


def _near_units(unit: str, units: Iterable[str]) -> list[str]:
    """Return the units a misspelt one may stand for; none where it measures something else."""
    folded = {known.casefold(): known for known in units}
    if unit.casefold() in folded:
        return [folded[unit.casefold()]]
    elsewhere = any(unit in others for others in _UNITS.values())
    return [] if elsewhere else near_names(unit, filter(None, units))


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One limit in absolute terms: ``figure`` must not exceed ``limit`` (in the figure's unit).

    ``asked_by`` is "budget" or "device" (its flash and RAM are limits nobody has to state);
    ``relative`` is the fraction of the baseline the user wrote, if that is how it was written.
    ``device`` names another device of a fleet, empty for the one that the artifact is first for.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    figure: FigureName
    limit: float
    asked_by: Literal["budget", "device"] = "budget"
    relative: float | None = None
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a condition is met, the figure it was judged by, and why not where it is not."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    condition: Condition
    met: bool
    figure: Figure | None
    reason: str


def judge(condition: Condition, sections: list[Figures]) -> Verdict:
    """Return the verdict by the best standing there is; without any figure it is not met."""
    figure = best_figure(condition.figure, sections)
    if figure is None:
        reason = f"{condition.figure} is not known for this device, so the limit cannot be met"
        return Verdict(condition=condition, met=False, figure=None, reason=reason)
    met = figure.upper <= condition.limit
    bound = "upper bound of the prediction" if figure.standing == "predicted" else figure.standing
    relation = "within" if met else "above"
    reason = (
        f"{format_figure(condition.figure, figure.upper)} ({bound}) is {relation} the limit of "
    )
    reason += format_figure(condition.figure, condition.limit)
    return Verdict(condition=condition, met=met, figure=figure, reason=reason)


def absolute_conditions(
    budget: Budget, baseline: Figures, hard_limits: Mapping[FigureName, float], *, device: str = ""
) -> tuple[Condition, ...]:
    """Return every condition with relative limits resolved against the baseline's figures.

    ``hard_limits`` are the device's own (flash, RAM); ``device`` is what conditions call it. Raises
    ``UsageError`` for a relative limit on a figure that the baseline does not have on this device.
    """
    conditions = []
    for field in fields(budget):
        limit = getattr(budget, field.name)
        if limit is None:
            continue
        figure: FigureName = "accuracy_drop" if field.name == "max_drop" else field.name  # type: ignore[assignment]
        fraction = limit.fraction if isinstance(limit, Relative) else None
        if isinstance(limit, Relative):
            limit = limit.fraction * _baseline_value(figure, baseline)
        conditions.append(
            Condition(figure=figure, limit=float(limit), relative=fraction, device=device)
        )
    for name, value in hard_limits.items():
        conditions.append(Condition(figure=name, limit=value, asked_by="device", device=device))
    return tuple(conditions)


def _baseline_value(figure: FigureName, baseline: Figures) -> float:
    if figure not in baseline:
        raise UsageError(
            f"a limit relative to the baseline's {figure} was asked, and that is not known here",
            next_step="give the limit in absolute units",
        )
    return baseline[figure].value


def format_figure(name: FigureName, value: float) -> str:
    """Return the value as a person reads it: ``8.2 ms``, ``148.3 kB``, ``0.9 %``."""
    if name == "latency_ms":
        return f"{value:.3g} ms"
    if name == "energy_mj":
        return f"{value:.3g} mJ"
    if name in ("accuracy", "accuracy_drop"):
        return f"{100 * value:.2f} %"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value:.0f} B"
