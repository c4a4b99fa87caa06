"""``edgesdk devices list`` and ``edgesdk devices show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgesdk.cli.app import command, devices
from edgesdk.cli.console import Answer

if TYPE_CHECKING:
    from edgesdk.device import DeviceProfile


@command(devices, "list")
def list_command() -> Answer:
    """List every device, its targets and precisions.

    Example: edgesdk devices list
    """
    from edgesdk.device_files import load_device, profile_names

    profiles = [load_device(name) for name in profile_names()]
    rows = [
        {
            "name": profile.name,
            "title": profile.title,
            "kind": profile.kind,
            "default_target": profile.targets[0],
            "runtimes": [
                {
                    "target": runtime.target,
                    "runtime": runtime.runtime,
                    "unit": runtime.unit,
                    "precisions": list(runtime.precisions),
                }
                for runtime in profile.runtime
            ],
        }
        for profile in profiles
    ]  # fmt: skip
    return Answer(data={"status": "ok", "devices": rows}, show=lambda c: _show_list(rows, c))


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
    return Answer(data=data, show=lambda console: _show_device(profile, console))


def _show_list(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("name", "device", "kind", "target", "runs on", "precisions")
    for row in rows:
        for index, runtime in enumerate(row["runtimes"]):
            first = index == 0
            table.add_row(
                row["name"] if first else "",
                row["title"] if first else "",
                row["kind"] if first else "",
                runtime["target"] + (" (default)" if first else ""),
                f"{runtime['runtime']} on {runtime['unit']}",
                ", ".join(runtime["precisions"]),
            )
    console.print(table)


def _show_device(profile: DeviceProfile, console: Console) -> None:
    from edgesdk.document import to_builtins

    about = f" ({profile.name}): {profile.kind}, {profile.processor}"
    console.print(Text.assemble((profile.title, "bold"), about))
    table = Table("property", "value", "kind", "source")
    for key, quantity in _quantities(to_builtins(profile), ""):
        table.add_row(key, f"{quantity['value']:.6g}", quantity["kind"], quantity["source"])
    console.print(table)
    for runtime in profile.runtime:
        console.print(
            f"{runtime.target}: {runtime.runtime} {runtime.minimum_version} or newer on the "
            f"{runtime.unit}, {runtime.threads} thread(s), channels in multiples of "
            f"{runtime.channel_multiple}, {', '.join(runtime.precisions)}; sparse kernels: "
            f"{', '.join(runtime.sparse_kernels) or 'none, so only whole channels save time'}"
        )
    for note in profile.notes:
        console.print(f"- {note}")


def _quantities(data: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    """Return every sourced number in a profile with its dotted path."""
    if isinstance(data, dict) and {"value", "source", "kind"} <= set(data):
        return [(where, data)]
    children = data.items() if isinstance(data, dict) else []
    if isinstance(data, list):
        children = [
            (item.get("target", str(i)), item)
            for i, item in enumerate(data)
            if isinstance(item, dict)
        ]
    return [q for key, value in children for q in _quantities(value, f"{where}.{key}".lstrip("."))]
