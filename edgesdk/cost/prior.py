"""What units of a kind do before anybody has measured one: where every fit starts from.

Orders of magnitude, from peak rates and bandwidths of the units in the packaged profiles (their
sources are in the profiles), so that a class of kernels that no measurement shows has a price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgesdk.precision_cost import KernelClass, KernelCost, KernelVariant, PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.scheme import Scheme

Unit = Literal["cpu", "gpu", "npu"]


@dataclass(frozen=True, kw_only=True)
class _Unit:
    mac_per_s: float
    bytes_per_s: float
    weight_bytes_per_s: float
    op_overhead_s: float
    inference_overhead_s: float
    mac_rates: Mapping[KernelClass, float] = field(default_factory=dict)
    byte_rates: Mapping[KernelClass, float] = field(default_factory=dict)
    scheme_speedup: Mapping[Scheme, float] = field(default_factory=dict)


# A phone's NPU in fp16: half of about 10 TMAC/s reached; activations in on-chip memory, weights
# from LPDDR5X; images enter as float32 of three channels and are laid out anew.
_NPU = _Unit(
    mac_per_s=6e12,
    bytes_per_s=150e9,
    weight_bytes_per_s=45e9,
    op_overhead_s=1e-6,
    inference_overhead_s=3e-5,
    mac_rates={"depthwise": 1.5e12, "first_conv": 2e12},
    byte_rates={"conv": 400e9, "elementwise": 400e9, "input": 2e9, "output": 15e9},
    scheme_speedup={"int8": 2.5},
)
# An embedded Ampere GPU under TensorRT in fp16: half of what its tensor cores and LPDDR5 do.
_GPU = _Unit(
    mac_per_s=4e12,
    bytes_per_s=50e9,
    weight_bytes_per_s=50e9,
    op_overhead_s=3e-6,
    inference_overhead_s=1e-4,
    mac_rates={"depthwise": 4e11, "grouped": 1e12, "first_conv": 1e12},
    byte_rates={"input": 10e9, "output": 10e9},
    scheme_speedup={"fp32": 0.4, "int8": 1.5},
)
# A Cortex-M4 at 120 MHz with CMSIS-NN: one int8 MAC in two cycles, half of that depthwise.
_MICROCONTROLLER = _Unit(
    mac_per_s=60e6,
    bytes_per_s=60e6,
    weight_bytes_per_s=60e6,
    op_overhead_s=1e-5,
    inference_overhead_s=1e-5,
    mac_rates={"depthwise": 20e6},
    scheme_speedup={"fp32": 0.3, "int8": 1.0},
)
_UNITS: Mapping[Unit, _Unit] = {"npu": _NPU, "gpu": _GPU, "cpu": _MICROCONTROLLER}
_ERROR_FACTOR = 4.0


def prior_cost(unit: Unit, scheme: Scheme) -> PrecisionCost:
    """Return the coefficients a fit starts from, for microcontrollers (``cpu``), GPUs and NPUs."""
    found = _UNITS[unit]
    speed = found.scheme_speedup.get(scheme, 1.0)
    names = {*found.mac_rates, *found.byte_rates}
    if unit == "npu":
        names.add("reshape")
    kernels: dict[KernelClass | KernelVariant, KernelCost] = {
        name: KernelCost(
            mac_per_s=_guess(found.mac_rates.get(name), speed),
            bytes_per_s=_guess(found.byte_rates.get(name), 1.0),
        )
        for name in sorted(names)
    }
    return PrecisionCost(
        mac_per_s=_estimated(found.mac_per_s * speed),
        bytes_per_s=_estimated(found.bytes_per_s),
        weight_bytes_per_s=_estimated(found.weight_bytes_per_s),
        op_overhead_s=_estimated(found.op_overhead_s),
        inference_overhead_s=_estimated(found.inference_overhead_s),
        error_factor=_estimated(_ERROR_FACTOR),
        kernels=kernels,
    )


def _guess(rate: float | None, speed: float) -> Quantity | None:
    return None if rate is None else _estimated(rate * speed)


def _estimated(value: float) -> Quantity:
    return Quantity(value=value, source="units of this kind (edgesdk.cost.prior)", kind="estimated")
