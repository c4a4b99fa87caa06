"""``edgesdk doctor``: which toolchains are here, and the command that installs each missing one."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgesdk.cli.app import app, command
from edgesdk.cli.console import Answer


@command(app, "doctor")
def doctor_command() -> Answer:
    """Show which toolchains are installed, which versions were proven, and how to add the rest.

    Example: edgesdk doctor
    """
    from edgesdk.cache import default_root
    from edgesdk.compress.accelerator import available_accelerators
    from edgesdk.document import to_builtins
    from edgesdk.target import find_target, target_names

    chains = [find_target(name).toolchain() for name in target_names()]
    root = default_root()
    data: dict[str, Any] = {
        "status": "ok",
        "targets": [{**to_builtins(chain), "complete": chain.is_complete} for chain in chains],
        "accelerators": available_accelerators(),
        "cache": {"folder": str(root), "bytes": _bytes_under(root)},
    }
    return Answer(data=data, show=lambda console: _show(data, console))


def _bytes_under(root: Any) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def _show(data: dict[str, Any], console: Console) -> None:
    table = Table("target", "package", "found", "proven", "purpose")
    for chain in data["targets"]:
        for package in chain["packages"]:
            found = Text(package["found"] or "missing", "" if package["found"] else "red")
            if package["found"] not in (None, package["proven"]):
                found.stylize("yellow")
            table.add_row(
                chain["target"], package["name"], found, package["proven"], package["purpose"]
            )
    console.print(table)
    for chain in data["targets"]:
        if not chain["complete"]:
            install = f"{chain['target']}: {chain['install']}"
            console.print(install, highlight=False, soft_wrap=True)
        for package in chain["packages"]:
            if package["optional"] and not package["found"]:
                install = f"{chain['target']}, {package['name']}: {package['install']}"
                console.print(install, highlight=False, soft_wrap=True)
    console.print(f"training runs on: {', '.join(data['accelerators'])}")
    cache = data["cache"]
    console.print(f"cache: {cache['folder']} ({cache['bytes'] / 1e6:.1f} MB); remove it any time")
