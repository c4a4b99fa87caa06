"""``edgesdk integrate``: the code that runs an artifact in an app."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgesdk.cli.app import app, command
from edgesdk.cli.console import Answer
from edgesdk.progress import watching

if TYPE_CHECKING:
    from edgesdk.integrating.generation import Integration


@command(app, "integrate")
def integrate_command(
    artifact: Annotated[Path, typer.Argument(metavar="OUT", help="The artifact folder.")],
    kind: Annotated[
        str,
        typer.Option("--app", help="android, ios, web, linux or microcontroller."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write the code into.")],
) -> Answer:
    """Write a module that runs a finished artifact in an app, from its manifest alone.

    Typed inputs and outputs, normalisation, layout, quantization and labels, a check of the model's
    hash, a self-test on the golden vectors, timing as a measurement, and a README that says which
    runtime it needs and what was built.

    Example: edgesdk integrate out --app web -o my_page
    """
    from edgesdk.integrating.generation import integrate

    watching.get().step(f"Writing the app for {kind}")
    result = integrate(artifact, kind, out)
    return Answer(data=result.to_json(), show=lambda console: _show(result, console))


def _show(result: Integration, console: Console) -> None:
    for name in result.files:
        console.print(f"  {name}", highlight=False, soft_wrap=True)
    console.print(f"{len(result.files)} files in {result.folder}", soft_wrap=True)
    if not result.is_built:
        console.print("not built here: the README says what was checked", soft_wrap=True)
