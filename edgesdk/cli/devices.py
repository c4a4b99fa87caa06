"""``edgesdk devices list``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgesdk.cli.app import command, devices
from edgesdk.cli.console import Answer

if TYPE_CHECKING:
    from edgesdk.device import DeviceProfile

# Weakest first: a runtime's latency is as good as the worst of its coefficients.
_WEAKEST = ("estimated", "datasheet", "fitted", "measured")


@command(devices, "list")
def list_command(
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="Only phone, embedded, microcontroller or computer."),
    ] = None,
) -> Answer:
    """List every device, its targets and precisions, and what its latencies rest on.

    Example: edgesdk devices list --kind microcontroller
    """
    from edgesdk.device_files import load_device, profile_names

    profiles = [load_device(name) for name in profile_names()]
    _check_kind(kind, sorted({profile.kind for profile in profiles}))
    rows = [_row(profile) for profile in profiles if kind in (None, profile.kind)]
    return Answer(data={"status": "ok", "devices": rows}, show=lambda c: _show_list(rows, c))


def _check_kind(kind: str | None, known: Sequence[str]) -> None:
    from edgesdk.errors import UsageError, unknown_name

    if kind is not None and kind not in known:
        listing = f"known: {', '.join(known)}"
        raise UsageError(unknown_name("kind of device", kind, known, listing=listing))


def _row(profile: DeviceProfile) -> dict[str, Any]:
    from edgesdk.target import target_names

    return {
        "name": profile.name,
        "title": profile.title,
        "kind": profile.kind,
        "default_target": profile.targets[0],
        "calibrated_from": profile.calibrated_from,
        "runtimes": [
            {
                "target": runtime.target,
                "is_emitted": runtime.target in target_names(),
                "runtime": runtime.runtime,
                "unit": runtime.unit,
                "precisions": list(runtime.precisions),
                "latency_kinds": {
                    scheme: min(
                        (cost.mac_per_s.kind, cost.error_factor.kind), key=_WEAKEST.index
                    )
                    for scheme, cost in runtime.precisions.items()
                },
            }
            for runtime in profile.runtime
        ],
    }  # fmt: skip


def _show_list(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("name", "device", "kind", "target, the default first", "its latency rests on")
    for row in rows:
        calibrated = " (calibrated)" if row["calibrated_from"] else ""
        table.add_row(
            row["name"],
            row["title"] + calibrated,
            row["kind"],
            "\n".join(_way(runtime) for runtime in row["runtimes"]),
            "\n".join(_evidence(runtime["latency_kinds"]) for runtime in row["runtimes"]),
        )
    console.print(table)
    if any(not runtime["is_emitted"] for row in rows for runtime in row["runtimes"]):
        console.print("(predicted only): no installed target emits for it.")


def _way(runtime: dict[str, Any]) -> str:
    only = "" if runtime["is_emitted"] else " (predicted only)"
    return f"{runtime['target']}{only}: {runtime['unit']}, {' '.join(runtime['precisions'])}"


def _evidence(kinds: dict[str, str]) -> str:
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    return ", ".join(f"{scheme} {kind}" for scheme, kind in kinds.items())
