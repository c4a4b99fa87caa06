"""``edgesdk verify``: check a finished artifact again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from edgesdk.cli.app import app, command
from edgesdk.cli.console import Answer
from edgesdk.cli.options import PickleOption
from edgesdk.progress import watching

if TYPE_CHECKING:
    from edgesdk.verification import Verification


@command(app, "verify")
def verify_command(
    artifact: Annotated[Path, typer.Argument(metavar="OUT", help="The artifact folder.")],
    task: Annotated[
        str | None, typer.Option("--task", help="Also score it on this task's test data.")
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            help="Replay it on this older runtime instead, in an environment of its own: "
            "tflite-runtime.",
        ),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option("--python", help="The Python of an environment that has --runtime."),
    ] = None,
    allow_pickle: PickleOption = False,
) -> Answer:
    """Check hashes, load the artifact on its runtime, replay its golden vectors, score it.

    With --runtime it says whether the file really runs on a runtime that apps still ship; the
    environment is made once, in the cache, unless --python names one.

    Exit code 8: damaged or tampered with; 4: it no longer computes what was sealed.

    Example: edgesdk verify out --task demo:digits
    """
    from edgesdk.errors import UsageError
    from edgesdk.task_source import load_task
    from edgesdk.verification import verify_artifact, verify_in_field

    if runtime is None and python is not None:
        raise UsageError("--python is for --runtime")
    if runtime is not None and task is not None:
        raise UsageError(
            "--task scores on the artifact's own runtime",
            next_step="leave --task or --runtime out",
        )
    loaded = load_task(task, allow_pickle=allow_pickle) if task else None
    watching.get().step("Verifying the artifact")
    if runtime is not None:
        result = verify_in_field(artifact, runtime, python)
    else:
        result = verify_artifact(artifact, loaded)
    return Answer(
        data=result.to_json(),
        show=lambda console: _show(result, console),
        exit_code=4 if result.status == "failed" else 0,
    )


def _show(result: Verification, console: Console) -> None:
    for check in result.checks:
        mark = ("passed", "green") if check.passed else ("FAILED", "red")
        console.print(Text.assemble(mark, f" {check.name}: {check.detail}"))
    if result.status == "not verified":
        console.print(
            "not verified: nothing on this machine runs this artifact; its bytes are whole"
        )
    elif result.status == "interpreted":
        console.print(f"interpreted by {result.runtime}, not run on the device's own runtime")
    else:
        console.print(f"{result.status} on {result.runtime}")
