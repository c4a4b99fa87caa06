"""Effort: how much work may go into winning accuracy back, in words and in seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgesdk.errors import UsageError

EffortName = Literal["quick", "standard", "thorough"]


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What an effort pays for: ``sample_visits`` of one training (0: nothing is trained), and
    how many ``trainings`` the search may do before it gives up."""

    sample_visits: int
    trainings: int


EFFORTS: Mapping[EffortName, Spending] = {
    "quick": Spending(sample_visits=0, trainings=0),
    "standard": Spending(sample_visits=60_000, trainings=3),
    "thorough": Spending(sample_visits=240_000, trainings=5),
}
"""``quick`` trains nothing, ``standard`` takes minutes for a small network on two cores,
``thorough`` four times as long for each training."""

_UNITS: Mapping[str, float] = {"s": 1, "min": 60, "m": 60, "h": 3600}
_TIME = re.compile(r"^\s*(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>[a-z]+)\s*$")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to try: ``name``, and at most ``seconds`` of training altogether (None: no bound).

    With a bound in seconds a plan depends on how fast the machine is; without one it does not.
    """

    name: EffortName = "standard"
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.name not in EFFORTS:
            raise UsageError(
                f"{self.name!r} is not an effort", expected=f"one of {', '.join(EFFORTS)}"
            )
        if self.seconds is not None and not (0 < self.seconds < math.inf):
            raise UsageError(f"a time of {self.seconds} s cannot be", expected="more than zero")

    @property
    def spending(self) -> Spending:
        """What the effort pays for."""
        return EFFORTS[self.name]

    @classmethod
    def parse(cls, name: str = "standard", time: str | None = None) -> Effort:
        """Return the effort that such texts mean: ``name="thorough", time="30min"``."""
        return cls(name=name, seconds=None if time is None else parse_seconds(time))  # type: ignore[arg-type]


def parse_seconds(text: str) -> float:
    """Return the seconds that a text such as ``30min`` means; ``UsageError`` where none."""
    match = _TIME.match(text)
    if match is None or match["unit"] not in _UNITS:
        raise UsageError(
            f"--time {text!r} is not a time", expected="a number with s, min or h, as 30min"
        )
    return float(match["number"]) * _UNITS[match["unit"]]
