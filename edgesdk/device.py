"""A device profile: what is known about one device, every number with its source and kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from edgesdk.errors import ProfileError
from edgesdk.evidence import Evidence
from edgesdk.figure import FigureName
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.scheme import Scheme

DeviceKind = Literal["phone", "embedded", "microcontroller", "computer"]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One level of a device's memory: how large it is, and how fast it is read where that is known.

    ``name`` is the maker's ("DTCM", "LPDDR5X"); levels are listed from the fastest on.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    size_bytes: Quantity
    bandwidth_bytes_per_s: Quantity | None = None


Accelerator = Literal[
    "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256",
    "ethos-u65-256", "ethos-u65-512",
    "ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048",
]  # fmt: skip
"""What Vela calls an Ethos-U and how many MACs a cycle it does."""


@dataclass(frozen=True, kw_only=True)
class Vela:
    """What Arm's compiler for the Ethos-U is told about the chip, in its own words.

    - ``accelerator``: the NPU and its MACs a cycle.
    - ``system_config``, ``memory_mode``: sections of Vela's ``Arm/vela.ini``: clocks, bandwidths,
      and which memory holds weights and tensors.
    - ``arena_bytes``: what tensors may take; Vela's own default is unlimited in most modes.
    - ``error_factor``: how far the device may be from the cycles that Vela estimates.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    accelerator: Accelerator
    system_config: str
    memory_mode: str
    arena_bytes: Quantity
    error_factor: Quantity


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One way to run a file on the device: a target's format under a runtime on a unit.

    - ``target``: which target emits for it; ``delegate`` which of the target's back ends. The
      first of a target is the one it takes where nobody names a delegate.
    - ``runtime``, ``minimum_version``: what executes it on the device.
    - ``unit``, ``threads``: where, and on how many threads.
    - ``channel_multiple``: channel counts that are multiples of it run without waste.
    - ``weights_in_ram``: whether weights count against RAM (false: executed from flash).
    - ``integer_io``: int8 models take and return int8 there (otherwise float).
    - ``sparse_kernels``: sparsity patterns that run faster there ("2:4", or "unstructured" for
      zeros anywhere); usually none.
    - ``cpu_operators``: kinds of operators that the delegate leaves to the CPU's plain kernels.
    - ``runtime_ram_bytes``, ``runtime_flash_bytes``: what the runtime itself takes.
    - ``vela``: how Vela compiles files for it, where the unit is an Ethos-U.
    - ``evidence``: under which names measurements of it are published.
    - ``precisions``: the schemes the unit computes, with their costs.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    target: str
    delegate: str
    runtime: str
    minimum_version: str
    unit: Literal["cpu", "gpu", "npu"]
    threads: int
    channel_multiple: int
    weights_in_ram: bool
    integer_io: bool
    sparse_kernels: tuple[str, ...] = ()
    cpu_operators: tuple[str, ...] = ()
    runtime_ram_bytes: Quantity | None = None
    runtime_flash_bytes: Quantity | None = None
    vela: Vela | None = None
    evidence: tuple[Evidence, ...] = ()
    precisions: Mapping[Scheme, PrecisionCost]

    @property
    def float_scheme(self) -> Scheme:
        """The precision the baseline is emitted in: fp32 where the unit has it, else fp16."""
        for scheme in ("fp32", "fp16"):
            if scheme in self.precisions:
                return scheme
        raise ProfileError(
            f"the {self.runtime} runtime of target {self.target!r} lists no float precision",
            expected="fp32 or fp16 among its precisions, for the baseline",
        )

    @property
    def skips_zeros(self) -> bool:
        """Whether kernels read sparse weights as they are stored, without their zeros."""
        return "unstructured" in self.sparse_kernels

    @property
    def int8_speedup(self) -> float | None:
        """How many times faster int8 multiplies than the float baseline; None without int8.

        Of the general coefficients; 1 means that int8 only saves bytes there.
        """
        if "int8" not in self.precisions:
            return None
        floating = self.precisions[self.float_scheme].mac_per_s.value
        return self.precisions["int8"].mac_per_s.value / floating


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """One device. The first ``[[runtime]]`` is its default, the first of a target that target's.

    ``ram_bytes`` is all of it; ``flash_bytes`` is stated where the model lives in flash, and
    both are then hard limits. ``calibrated_from`` names the profile whose coefficients were
    corrected by measurements on the user's own device; with the same name it replaces that one.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema_version: Literal[1]
    name: str
    title: str
    kind: DeviceKind
    processor: str
    calibrated_from: str | None = None
    clock_hz: Quantity | None = None
    ram_bytes: Quantity
    flash_bytes: Quantity | None = None
    notes: tuple[str, ...] = ()
    memory: tuple[Memory, ...] = ()
    runtime: tuple[Runtime, ...]

    def __post_init__(self) -> None:
        if not self.runtime:
            raise ProfileError(f"device {self.name!r} has no [[runtime]] table")

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets with a runtime on this device, its default first."""
        return tuple(dict.fromkeys(runtime.target for runtime in self.runtime))

    def runtime_for(self, target: str | None, delegate: str | None = None) -> Runtime:
        """Return the first runtime of a target and a delegate (None: any of them).

        Raises ``ProfileError`` if there is none.
        """
        for runtime in self.runtime:
            if target in (None, runtime.target) and delegate in (None, runtime.delegate):
                return runtime
        ways = ", ".join(f"{runtime.target} with {runtime.delegate}" for runtime in self.runtime)
        asked = f"target {target!r}" if target is not None else "any target"
        with_delegate = f" with delegate {delegate!r}" if delegate is not None else ""
        raise ProfileError(
            f"{self.name} has no runtime for {asked}{with_delegate}", expected=f"one of {ways}"
        )

    def hard_limits(self, runtime: Runtime) -> Mapping[FigureName, float]:
        """Return the limits nobody has to state: what is left of RAM and flash beside a runtime.

        Only where flash is known, that is on microcontrollers; a phone's gigabytes never bind.
        """
        if self.flash_bytes is None:
            return {}
        ram = runtime.runtime_ram_bytes.value if runtime.runtime_ram_bytes else 0.0
        flash = runtime.runtime_flash_bytes.value if runtime.runtime_flash_bytes else 0.0
        return {
            "memory_bytes": self.ram_bytes.value - ram,
            "flash_bytes": self.flash_bytes.value - flash,
        }
