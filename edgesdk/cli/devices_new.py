"""``edgesdk devices new``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from edgesdk.cli.app import command, devices
from edgesdk.cli.console import Answer

_LIKE = "raspberry_pi_5"


@command(devices, "new")
def new_command(
    name: Annotated[str, typer.Argument(help="The new device's name: a-z, 0-9 and _.")],
    like: Annotated[
        str, typer.Option("--like", help="The device to start from, by name or path.")
    ] = _LIKE,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write, NAME.toml; default: here."),
    ] = None,
) -> Answer:
    """Write a commented profile to fill in. It is valid at once, every number marked as a guess.

    Example: edgesdk devices new my_board --like nucleo_l4r5zi
    """
    from edgesdk.device_files import load_device, profile_folders
    from edgesdk.device_template import template_text

    path = out or Path(f"{name}.toml")
    _check_name(name, path)
    _write(path, template_text(name, load_device(like)))
    data = {"status": "ok", "name": name, "like": like, "file": str(path)}
    folder = profile_folders()[1]

    return Answer(
        data=data,
        show=lambda console: console.print(
            f"{path}: the values of {like}, each marked FILL IN.\n"
            f"Next: fill it in, run 'edgesdk devices check {path}', use it as '--device {path}', "
            f"or put it into {folder} to use it by name.",
            soft_wrap=True,
            highlight=False,
        ),
    )


def _check_name(name: str, path: Path) -> None:
    from edgesdk.device_files import profile_names
    from edgesdk.errors import UsageError

    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise UsageError(
            f"{name!r} is no name for a device", expected="lower-case letters, digits and _"
        )
    if name in profile_names():
        raise UsageError(
            f"there is a device named {name!r} already",
            next_step=f"choose another name; 'edgesdk devices show {name}' shows what there is",
        )
    if path.name != f"{name}.toml":
        raise UsageError(
            f"a profile of {name} cannot be in a file named {path.name}",
            expected=f"a file named {name}.toml",
        )


def _write(path: Path, text: str) -> None:
    from edgesdk.errors import OutputError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OutputError(f"{path} exists already", next_step="name another file") from None
    except OSError as problem:
        raise OutputError(f"{path} cannot be written: {problem.strerror}") from None
