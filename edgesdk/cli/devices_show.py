"""``edgesdk devices show``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgesdk.cli.app import command, devices
from edgesdk.cli.console import Answer

if TYPE_CHECKING:
    from edgesdk.device import DeviceProfile, Runtime
    from edgesdk.evidence import Evidence

_BINARY = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_UNITS = {"_hz": "Hz", "mac_per_s": "MAC/s", "bytes_per_s": "B/s", "_per_s": "/s", "power_w": "W"}
_DECIMAL = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@command(devices, "show")
def show_command(
    name: Annotated[str, typer.Argument(help="The device's name, or a path to its .toml file.")],
) -> Answer:
    """Show everything known about a device, every number with its source and kind of evidence.

    Example: edgesdk devices show nucleo_h7a3zi_q
    """
    from edgesdk.device_files import load_device
    from edgesdk.document import to_builtins

    profile = load_device(name)
    data = {"status": "ok", "device": to_builtins(profile)}
    return Answer(data=data, show=lambda console: _show(profile, console))


def _show(profile: DeviceProfile, console: Console) -> None:
    from edgesdk.document import to_builtins

    about = f" ({profile.name}): {profile.kind}, {profile.processor}"
    console.print(Text.assemble((profile.title, "bold"), about))
    if profile.calibrated_from:
        console.print(f"Calibrated on your own device, from {profile.calibrated_from}.")
    data = to_builtins(profile)
    table = _numbers_table("hardware")
    _add_numbers(table, {key: value for key, value in data.items() if key != "runtime"})
    console.print(table)
    for index, (runtime, its_data) in enumerate(zip(profile.runtime, data["runtime"], strict=True)):
        console.print()
        _show_runtime(runtime, its_data, console, is_default=index == 0)
    console.print()
    for note in profile.notes:
        console.print(f"- {note}")
    console.print(_next_step(profile))


def _show_runtime(
    runtime: Runtime, data: Mapping[str, Any], console: Console, *, is_default: bool
) -> None:
    from edgesdk.target import target_names

    heading = f"{runtime.target}{' (default)' if is_default else ''}"
    how = (
        f": {runtime.runtime} {runtime.minimum_version} or newer, {runtime.delegate} on the "
        f"{runtime.unit}, {runtime.threads} thread(s)"
    )
    console.print(Text.assemble((heading, "bold"), how))
    if runtime.target not in target_names():
        console.print("  no installed target emits for it: figures are predicted, no file is made")
    for line in _abilities(runtime):
        console.print(f"  {line}")
    table = _numbers_table("number")
    _add_numbers(table, data)
    console.print(table)


def _abilities(runtime: Runtime) -> Iterator[str]:
    """Yield what the runtime can do, a line for each thing the planner decides by."""
    yield f"channels run without waste in multiples of {runtime.channel_multiple}"
    sparse = ", ".join(runtime.sparse_kernels)
    yield f"sparse kernels: {sparse or 'none, so only whole channels save time'}"
    if {"fp32", "fp16"} & set(runtime.precisions) and runtime.int8_speedup is not None:
        yield (
            f"int8 multiplies {runtime.int8_speedup:.2g} times as fast as {runtime.float_scheme}"
        )
    left = ", ".join(runtime.cpu_operators)
    yield f"left to the CPU's plain kernels: {left or 'none known'}"
    if runtime.vela is not None:
        told = (runtime.vela.accelerator, runtime.vela.system_config, runtime.vela.memory_mode)
        yield f"compiled by Vela for {', '.join(told)}"
    where = "count against RAM" if runtime.weights_in_ram else "are executed from flash"
    io = "integers" if runtime.integer_io else "float"
    yield f"weights {where}; a quantized model takes and returns {io}"
    for scheme, cost in runtime.precisions.items():
        if cost.networks is not None and cost.median_error is not None:
            yield (
                f"{scheme} rests on {cost.networks} networks; of those left out, half are "
                f"within {cost.median_error.value:.0%}, nine in ten within a factor of "
                f"{cost.error_factor.value:.3g}"
            )
        names = [_published(item) for item in runtime.evidence if item.scheme == scheme]
        if names:
            yield f"{scheme} is published as {'; '.join(names)}"


def _published(evidence: Evidence) -> str:
    by = f", executed by {evidence.engine}" if evidence.engine else ""
    return f"{evidence.device} ({evidence.runtime} {evidence.precision}{by})"


def _numbers_table(title: str) -> Table:
    table = Table(title, "value", "kind", "source")
    table.columns[1].justify = "right"
    return table


def _add_numbers(table: Table, data: Any) -> None:
    """Add a row for each number; a source that repeats the one above is not printed again."""
    above = None
    for key, quantity in _quantities(data, ""):
        source = quantity["source"]
        shown = "as above" if source == above else source
        value = _readable(key.rsplit(" ", 1)[-1], quantity["value"])
        table.add_row(key, value, quantity["kind"], shown)
        above = source


def _quantities(data: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every sourced number with where it stands, in words that a person reads."""
    if isinstance(data, list):
        for item in data:
            if isinstance(item, dict) and "name" in item:
                yield from _quantities(item, item["name"])
    elif isinstance(data, dict) and {"value", "source", "kind"} <= data.keys():
        yield where, data
    elif isinstance(data, dict):
        for key, item in data.items():
            inside = where if key in ("precisions", "kernels", "memory") else f"{where} {key}"
            yield from _quantities(item, inside.strip())


def _readable(key: str, value: float) -> str:
    """Return a number with the unit that its key states."""
    for ending, unit in _UNITS.items():
        if key.endswith(ending):
            return f"{_scaled(value)}{unit}"
    if key.endswith("_bytes"):
        size, unit = next(((size, unit) for size, unit in _BINARY if value >= size), (1, "B"))
        return f"{value / size:.4g} {unit}"
    return f"{value * 1e6:.4g} us" if key.endswith("_s") else f"{value:.4g}"


def _scaled(value: float) -> str:
    for size, prefix in _DECIMAL:
        if value >= size:
            return f"{value / size:.4g} {prefix}"
    return f"{value:.4g} "


def _next_step(profile: DeviceProfile) -> str:
    kinds = {cost.mac_per_s.kind for r in profile.runtime for cost in r.precisions.values()}
    if kinds == {"measured"}:
        return "Every latency rests on measurements of this device."
    return (
        f"Better latencies: measure on the device ('edgesdk devices calibrate {profile.name}'), or "
        "fit to published measurements ('edgesdk devices fit')."
    )
