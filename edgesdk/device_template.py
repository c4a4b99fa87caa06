"""The commented template of a new device profile: valid as it is, and honest about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from edgesdk.device import DeviceProfile
from edgesdk.device_text import profile_text
from edgesdk.quantity import Quantity

LEAST_ERROR_FACTOR = 3.0
"""What a copied coefficient is at least taken to be wrong by, either way."""

_HEADER = """\
# A device profile. It is valid as it stands and describes {like}: go through it from the top,
# put this device's value, where it comes from and the kind of evidence in place of each line that
# says FILL IN, delete what does not apply, then run
#     edgesdk devices check {name}.toml
# kind = "datasheet" (the maker's document says so), "measured" (read from the device), "fitted"
# (computed from measurements that source names) or "estimated" (derived; source says from what).
# A table of coefficients states the source and kind of its bare numbers once.
"""

# What stands above a line; the keys are those of the profile's tables.
_COMMENTS: Mapping[str, str] = {
    "title": "FILL IN: the maker's name of the device.",
    "kind": "phone, embedded, microcontroller or computer.",
    "processor": "FILL IN: chip, cores, accelerator.",
    "clock_hz": "FILL IN, or delete: of the fastest core, in Hz. For people.",
    "ram_bytes": "FILL IN: on a microcontroller the largest block an arena can be in.",
    "flash_bytes": "FILL IN. Only where the model is executed from flash: makes both hard limits.",
    "notes": "FILL IN, or delete: what a user of this device has to know.",
    "[[memory]]": "FILL IN, or delete: the levels of memory, from the fastest on.",
    "[[runtime]]": "One way to execute a file there; the first is the device's default.",
    "target": "Which target emits the file, and for which of its back ends.",
    "runtime": "What executes the file on the device, and from which version on.",
    "unit": "cpu, gpu or npu.",
    "channel_multiple": "FILL IN: the width of the vector or matrix unit, in channels.",
    "weights_in_ram": "false where weights are executed from flash.",
    "integer_io": "true where a quantized model takes and returns integers.",
    "sparse_kernels": 'Sparsity patterns that really run faster, such as "2:4" or "unstructured".',
    "cpu_operators": "Kinds of operators that the delegate leaves to the CPU's plain kernels.",
    "runtime_ram_bytes": "FILL IN: what the runtime takes before a model is loaded.",
    "[runtime.vela]": "FILL IN, or delete: only for an Ethos-U, what Vela is told.",
    "[runtime.precisions": "FILL IN, or let 'edgesdk devices fit' do it; delete what the unit "
    "does not compute.",
}


def template_text(name: str, like: DeviceProfile) -> str:
    """Return the text of a new profile with the values of ``like``, each marked as not its own.

    Every number is ``estimated``, and no coefficient claims to be better than within a factor of
    ``LEAST_ERROR_FACTOR``. Measurements of ``like`` are not taken over as evidence.
    """
    source = f"FILL IN: the value of {like.name}, not of this device"
    draft: DeviceProfile = _disowned(like, source)
    draft = replace(
        draft,
        name=name,
        title=f"FILL IN (copied from {like.title})",
        processor=f"FILL IN (copied: {like.processor})",
        calibrated_from=None,
        notes=("FILL IN",),
        runtime=tuple(replace(runtime, evidence=()) for runtime in draft.runtime),
    )
    lines = [_HEADER.format(name=name, like=like.name)]
    explained: set[str] = set()
    for line in profile_text(draft).splitlines():
        comment = _comment_for(line, explained)
        if comment:
            lines.append(f"# {comment}")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _comment_for(line: str, explained: set[str]) -> str | None:
    """Return what to say above a line, once for each key."""
    key = line.partition(" = ")[0] if not line.startswith("[") else line
    if key.startswith("[runtime.precisions"):
        key = "[runtime.precisions"
    if key in explained:
        return None
    explained.add(key)
    return _COMMENTS.get(key)


def _disowned(value: Any, source: str) -> Any:
    """Return the value with every quantity in it estimated, from ``source``."""
    if isinstance(value, Quantity):
        return Quantity(value=value.value, source=source, kind="estimated")
    if isinstance(value, Mapping):
        return {key: _disowned(item, source) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_disowned(item, source) for item in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed = {field.name: _disowned(getattr(value, field.name), source) for field in fields(value)}
    if "error_factor" in changed:
        factor = max(LEAST_ERROR_FACTOR, changed["error_factor"].value)
        changed["error_factor"] = replace(changed["error_factor"], value=factor)
    return replace(value, **changed)
