"""``edgesdk devices check`` and ``edgesdk devices schema``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from edgesdk.cli.app import command, devices
from edgesdk.cli.console import Answer, schema_answer

if TYPE_CHECKING:
    from edgesdk.device_check import CheckedProfile


@command(devices, "check")
def check_command(
    profiles: Annotated[
        list[str] | None,
        typer.Argument(help="Names or paths to .toml files; without any, all profiles there are."),
    ] = None,
) -> Answer:
    """Check device profiles and print every problem found; exit code 7 if there is one.

    Example: edgesdk devices check samsung_galaxy_s24
    """
    from edgesdk.device_check import check_profiles
    from edgesdk.errors import ProfileError

    checked = check_profiles(profiles or ())
    count = sum(len(item.problems) for item in checked)
    data: dict[str, Any] = {"status": "ok"}
    if count:
        data = {
            "status": "error",
            "error": "ProfileError",
            "exit_code": ProfileError.exit_code,
            "message": _summary(checked, count),
        }
    data["profiles"] = [
        {
            "name": item.path.stem,
            "file": str(item.path),
            "problems": [str(problem) for problem in item.problems],
        }
        for item in checked
    ]
    exit_code = ProfileError.exit_code if count else 0
    return Answer(data=data, show=lambda c: _show(checked, count, c), exit_code=exit_code)


@command(devices, "schema")
def schema_command() -> Answer:
    """Print the JSON schema of a device profile, for editors and other programs.

    Example: edgesdk devices schema
    """
    from edgesdk.device_schema import profile_schema

    return schema_answer(profile_schema())


def _show(checked: Sequence[CheckedProfile], count: int, console: Console) -> None:
    for item in checked:
        if item.problems:
            console.print(str(item.path), soft_wrap=True, highlight=False)
        for problem in item.problems:
            console.print(f"  - {problem}", soft_wrap=True, highlight=False)
    console.print(_summary(checked, count))


def _summary(checked: Sequence[CheckedProfile], count: int) -> str:
    bad = sum(bool(item.problems) for item in checked)
    if not count:
        return f"{len(checked)} profile(s), no problem found"
    return f"{count} problem(s) in {bad} of {len(checked)} profile(s)"
