"""A fleet: several devices on which one and the same file must keep the budget."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgesdk.budget import Budget, Condition, absolute_conditions
from edgesdk.device import DeviceProfile, Runtime
from edgesdk.errors import UsageError
from edgesdk.figure import Figures

# Whose runtimes read one file alike: the format, who executes it, integers at its boundary, and the
# accelerator that Vela compiles for.
_DECIDE_THE_FILE = ("runtime", "integer_io", "vela")

# Whose files are compiled for one delegate, where others are delegated when they are loaded.
_ONE_DELEGATE = frozenset({"executorch"})


@dataclass(frozen=True, kw_only=True)
class Member:
    """Another device of the fleet, and its runtime for the file."""

    device: DeviceProfile
    runtime: Runtime


def common_target(devices: Sequence[DeviceProfile], target: str | None) -> str | None:
    """Return the target asked for, else the first device's first one that all devices have.

    Raises ``UsageError`` for a device named twice and for devices without a common target.
    """
    names = [device.name for device in devices]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--device {twice} was given twice", expected="each device once")
    if target is not None or len(devices) == 1:
        return target
    first, *others = devices
    for runtime in first.runtime:
        if all(_reads_its_file(other, runtime) for other in others):
            return runtime.target
    each = "; ".join(f"{device.name}: {', '.join(device.targets)}" for device in devices)
    raise UsageError(
        f"no target has a runtime on every one of the devices ({each})",
        expected="devices that one file can run on",
        next_step="compile for each group of devices apart",
    )


def members_of(first: Runtime, others: Sequence[DeviceProfile]) -> tuple[Member, ...]:
    """Return the other devices with the runtimes that read the first one's file.

    Raises ``UsageError`` for a device that needs another file.
    """
    members = []
    for device in others:
        if not _reads_its_file(device, first):
            raise UsageError(
                f"{device.title} needs another file: it has no {first.target} for {first.delegate}",
                expected="devices that one file can run on",
                next_step=f"compile for {device.name} apart",
            )
        runtime = device.runtime_for(first.target, _delegate_of_file(first))
        for what in _DECIDE_THE_FILE:
            mine, theirs = getattr(first, what), getattr(runtime, what)
            if mine != theirs:
                raise UsageError(
                    f"{device.title} needs another file: its {what} is {theirs}, not {mine}",
                    expected="devices that one file can run on",
                    next_step=f"compile for {device.name} apart",
                )
        members.append(Member(device=device, runtime=runtime))
    return tuple(members)


def _delegate_of_file(runtime: Runtime) -> str | None:
    """Return the delegate that a file for the runtime is compiled for, None where it is open."""
    return runtime.delegate if runtime.target in _ONE_DELEGATE else None


def _reads_its_file(device: DeviceProfile, first: Runtime) -> bool:
    """Return whether a device has a runtime of the same target, and delegate where that counts."""
    delegate = _delegate_of_file(first)
    return any(r.target == first.target and delegate in (None, r.delegate) for r in device.runtime)


def joint_runtime(first: Runtime, members: Sequence[Member]) -> Runtime:
    """Return the runtime that the file is emitted for: the first device's, but as old as the
    oldest one's and with the widest channel multiple of all."""
    runtimes = (first, *(member.runtime for member in members))
    oldest = min(runtimes, key=lambda runtime: _numbers(runtime.minimum_version))
    return replace(
        first,
        minimum_version=oldest.minimum_version,
        channel_multiple=max(runtime.channel_multiple for runtime in runtimes),
    )


def _numbers(version: str) -> tuple[int, ...]:
    """Return what versions of one runtime are ordered by: iOS9 is older than iOS17."""
    return tuple(int(digits) for digits in re.findall(r"\d+", version))


def fleet_conditions(
    budget: Budget, baseline: Figures, first: Member, others: Sequence[Member],
    elsewhere: Mapping[str, Figures],
) -> tuple[Condition, ...]:  # fmt: skip
    """Return the budget's conditions on the first device, then on each other one.

    ``elsewhere`` are the float original's figures on the others, by their names, which relative
    limits are of. The file's bytes and its accuracy are the same everywhere and asked once.
    """
    limits = first.device.hard_limits(first.runtime)
    conditions = absolute_conditions(budget, baseline, limits)
    own = replace(budget, size_bytes=None, download_bytes=None, max_drop=None)
    for other in others:
        name = other.device.name
        limits = other.device.hard_limits(other.runtime)
        conditions += absolute_conditions(own, elsewhere[name], limits, device=name)
    return conditions
