"""The values each number of a device profile can have at all; what lies outside is a wrong unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class QuantityRange:
    """The least and the greatest value of a number, and the slip that a value outside usually is.

    ``sourced``: it is written with its source and kind; otherwise it is a plain setting.
    """

    low: float
    high: float
    hint: str
    sourced: bool = True

    def holds(self, value: float) -> bool:
        """Return whether the value can be."""
        return self.low <= value <= self.high  # false for nan too


_RATE = "give operations or bytes per second, not millions or billions of them"
_SECONDS = "give seconds, not milliseconds or microseconds"
_BYTES = "give bytes, not KB, MB or GB"

# Physical limits with orders of magnitude to spare: they catch a wrong unit, not a bold claim.
RANGES: Mapping[str, QuantityRange] = {
    "clock_hz": QuantityRange(low=1e6, high=1e11, hint="give Hz, not MHz or GHz"),
    "ram_bytes": QuantityRange(low=1024, high=1e15, hint=_BYTES),
    "flash_bytes": QuantityRange(low=4096, high=1e15, hint=_BYTES),
    "size_bytes": QuantityRange(low=256, high=1e15, hint=_BYTES),
    "bandwidth_bytes_per_s": QuantityRange(low=1e5, high=1e15, hint=_RATE),
    "runtime_ram_bytes": QuantityRange(low=0, high=1e12, hint=_BYTES),
    "runtime_flash_bytes": QuantityRange(low=0, high=1e12, hint=_BYTES),
    "arena_bytes": QuantityRange(low=1024, high=1e12, hint=_BYTES),
    "mac_per_s": QuantityRange(low=1e4, high=1e17, hint=_RATE),
    "bytes_per_s": QuantityRange(low=1e4, high=1e15, hint=_RATE),
    "weight_bytes_per_s": QuantityRange(low=1e4, high=1e15, hint=_RATE),
    "channel_tile": QuantityRange(low=1, high=4096, hint="output channels computed at once"),
    "cache_bytes": QuantityRange(low=1024, high=1e12, hint=_BYTES),
    "cache_miss_bytes_per_s": QuantityRange(low=1e4, high=1e15, hint=_RATE),
    "op_overhead_s": QuantityRange(low=0, high=0.1, hint=_SECONDS),
    "inference_overhead_s": QuantityRange(low=0, high=10, hint=_SECONDS),
    "patch_s": QuantityRange(low=0, high=1e-3, hint=_SECONDS),
    "output_s": QuantityRange(low=0, high=1e-3, hint=_SECONDS),
    "error_factor": QuantityRange(
        low=1, high=100, hint="a factor of 1.5 means within 1/1.5 and 1.5"
    ),
    "median_error": QuantityRange(low=0, high=10, hint="a share: 0.1 is 10 %"),
    "power_w": QuantityRange(low=1e-6, high=1e4, hint="give watts, not milliwatts"),
    "power_error_factor": QuantityRange(
        low=1, high=100, hint="a factor of 1.5 means within 1/1.5 and 1.5"
    ),
    "networks": QuantityRange(low=1, high=1e6, hint="a count of networks", sourced=False),
    "threads": QuantityRange(low=1, high=4096, hint="a count of threads", sourced=False),
    "channel_multiple": QuantityRange(
        low=1, high=4096, hint="1 where any channel count runs alike", sourced=False
    ),
}
"""By the key a number stands under; a new quantity of a profile gets its line here."""
