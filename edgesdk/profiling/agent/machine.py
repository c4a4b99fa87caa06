"""What the machine says of itself: hardware, temperature, power, memory."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any


def read_text(*paths: str) -> str | None:
    """Return the text of the first of those files that can be read and holds any."""
    for path in paths:
        try:
            found = Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        except OSError:
            continue
        if found:
            return found
    return None


def hardware() -> dict[str, Any]:
    """Return the board's model, its processor and its system, as the kernel tells them."""
    cpu = read_text("/proc/cpuinfo") or ""
    name = re.search(r"^model name\s*:\s*(.+)$", cpu, re.MULTILINE)
    return {
        "model": read_text("/proc/device-tree/model", "/sys/devices/virtual/dmi/id/product_name"),
        "processor": name[1] if name else platform.processor() or None,
        "system": f"{platform.system()} {platform.release()}",
    }


def temperature_c() -> float | None:
    """Return the hottest thermal zone's temperature; kernels give thousandths of a degree."""
    found = [read_text(str(zone)) for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(text) / 1000 for text in found if text and re.fullmatch(r"-?\d+", text)]
    return max((value for value in degrees if -90 <= value <= 200), default=None)


def power() -> dict[str, Any]:
    """Return the source of power and the governor of the clock, null where the kernel is silent."""
    supplies = list(Path("/sys/class/power_supply").glob("*"))
    status = {read_text(str(supply / "status")) for supply in supplies} - {None}
    online = {read_text(str(supply / "online")) for supply in supplies} - {None}
    source = "battery" if "Discharging" in status else "mains" if "1" in online else None
    mode = read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {"power_source": source, "power_mode": mode}


def throttled() -> bool | None:
    """Return whether a Raspberry Pi's firmware throttles now; None on any other board."""
    bits = read_text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    return bool(int(bits, 16) & 0b111) if bits and re.fullmatch(r"[0-9a-fA-F]+", bits) else None


def peak_bytes() -> int | None:
    """Return the most memory that this process held at once, None where the system keeps none."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", read_text("/proc/self/status") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None
