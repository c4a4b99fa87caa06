"""Energy of an inference, where the board meters itself: read while inferences are timed.

Two meters are known. Linux's power capping (Documentation/power/powercap/powercap.rst of the
kernel): each package's ``energy_uj`` counts microjoules and wraps at ``max_energy_range_uj``; most
systems let only root read it. The INA3221 of Jetson modules (Documentation/hwmon/ina3221.rst, and
"Software-Based Power Consumption Modeling" in NVIDIA's Jetson Linux Developer Guide): millivolts
and milliamperes of labelled rails, of which the one that feeds the whole module is taken. Neither
was verified on a board that has it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .machine import read_text

POWERCAP = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")
_PERIOD_S = 0.1
_FEWEST_READINGS = 3
# What feeds all of the module, on Orin and on the older boards.
_WHOLE_MODULE = ("VDD_IN", "POM_5V_IN")


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Something that meters this machine: ``read`` gives joules so far, or watts."""

    source: str
    counts: bool
    read: Callable[[], float]


def find_meter() -> Meter | None:
    """Return the meter of the whole module or package, None where the machine has none to read."""
    return _find_rail() or _find_counter()


def _find_rail() -> Meter | None:
    for label in sorted(HWMON.glob("hwmon*/in*_label")):
        name = read_text(str(label.with_name("name")))
        if name != "ina3221" or read_text(str(label)) not in _WHOLE_MODULE:
            continue
        volts = label.with_name(label.name.replace("_label", "_input"))
        amperes = volts.with_name(volts.name.replace("in", "curr", 1))
        rail = f"INA3221, rail {read_text(str(label))}, idle power included"

        def watts(volts: Path = volts, amperes: Path = amperes) -> float:
            return _number(volts) / 1e3 * _number(amperes) / 1e3

        if _can_read(watts):
            return Meter(source=rail, counts=False, read=watts)
    return None


def _find_counter() -> Meter | None:
    zones = [
        zone
        for zone in sorted(POWERCAP.glob("*-rapl:*"))
        if re.fullmatch(r"[a-z]+-rapl:\d+", zone.name)
        and (read_text(str(zone / "name")) or "").startswith("package-")
    ]
    ranges = [read_text(str(zone / "max_energy_range_uj")) for zone in zones]
    wrapped = [0.0] * len(zones)
    last = [0.0] * len(zones)

    def joules() -> float:
        for at, zone in enumerate(zones):
            now = _number(zone / "energy_uj")
            if now < last[at]:
                wrapped[at] += float(ranges[at] or 0)
            last[at] = now
        return (sum(wrapped) + sum(last)) / 1e6

    names = ", ".join(str(read_text(str(zone / "name"))) for zone in zones)
    meter = Meter(source=f"RAPL of {names}, idle power included", counts=True, read=joules)
    return meter if zones and _can_read(joules) else None


def _number(path: Path) -> float:
    return float(path.read_text(encoding="ascii"))


def _can_read(read: Callable[[], float]) -> bool:
    try:
        read()
    except (OSError, ValueError):
        return False
    return True


class Metering:
    """Reads a meter ten times a second while its block runs; without a meter it does nothing."""

    def __init__(self, meter: Meter | None) -> None:
        self._meter = meter
        self._readings: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Metering:
        if self._meter is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._meter is not None:
            self._thread.join()

    def _watch(self) -> None:
        assert self._meter is not None
        while not self._ended.is_set():
            try:
                value = self._meter.read()
            except (OSError, ValueError):  # it went away: what was read stands
                return
            self._readings.append((time.monotonic(), value))
            self._ended.wait(_PERIOD_S)

    def watts(self, begin: float, end: float) -> float | None:
        """Return the mean power between two moments of ``time.monotonic``; None if not known."""
        inside = [(at, value) for at, value in self._readings if begin <= at <= end]
        if self._meter is None or len(inside) < _FEWEST_READINGS:
            return None
        if self._meter.counts:
            (first, low), (last, high) = inside[0], inside[-1]
            return (high - low) / (last - first)
        return sum(value for _, value in inside) / len(inside)

    def of_inference(self, begin: float, end: float, runs: int) -> dict[str, Any] | None:
        """Return the energy of one of the ``runs`` inferences that filled those seconds."""
        watts = self.watts(begin, end)
        if self._meter is None or watts is None or watts < 0:
            return None
        mean = f"{self._meter.source}: {watts:.3g} W over {end - begin:.1f} s"
        return {"inference_mj": 1e3 * watts * (end - begin) / runs, "source": mean}
