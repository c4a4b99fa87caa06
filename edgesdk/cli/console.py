"""What the command line prints: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from edgesdk.errors import BudgetInfeasible, EdgeSDKError

_PIPE_WIDTH = 200


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A command's result: the object for ``--json`` and a function that shows it to a person."""

    data: dict[str, Any]
    show: Callable[[Console], None]
    exit_code: int = 0


def schema_answer(schema: dict[str, Any]) -> Answer:
    """Return the answer of a command that prints a JSON schema."""
    text = json.dumps(schema, indent=2)
    return Answer(
        data={"status": "ok", "schema": schema},
        show=lambda console: console.print(text, soft_wrap=True, highlight=False),
    )


def split_stdout() -> TextIO:
    """Return the real standard output, and send everything else printed there to stderr.

    Converters print progress and notices to file descriptor 1; scripts that read our JSON must
    never see them.
    """
    real = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return real


def quiet_libraries() -> None:
    """Keep warnings and log lines of the toolchains away from the user (``--debug`` shows them)."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def print_answer(answer: Answer, stdout: TextIO, *, as_json: bool) -> None:
    """Print a command's result as one JSON object or for a person."""
    if as_json:
        print(json.dumps(answer.data, ensure_ascii=False, allow_nan=False), file=stdout)
    else:
        # Names and paths may hold what rich would read as markup or emoji, and whoever reads a
        # pipe searches for whole words.
        width = None if stdout.isatty() else _PIPE_WIDTH
        answer.show(Console(file=stdout, markup=False, emoji=False, width=width))
    stdout.flush()


def error_data(problem: EdgeSDKError) -> dict[str, Any]:
    """Return the JSON object for an error; an infeasible budget answers with its whole result."""
    if isinstance(problem, BudgetInfeasible) and problem.result is not None:
        data: dict[str, Any] = problem.result.to_json()
        return {**data, "message": str(problem)}
    return {
        "status": "error",
        "error": type(problem).__name__,
        "exit_code": problem.exit_code,
        "message": str(problem),
        "found": problem.found,
        "expected": problem.expected,
        "next_step": problem.next_step,
        **problem.details,
    }


def print_error(data: dict[str, Any], stdout: TextIO, *, as_json: bool, debug: bool) -> None:
    """Print an error: the JSON object to stdout, or a readable message to stderr."""
    if debug:
        traceback.print_exc(file=sys.stderr)
    if as_json:
        print(json.dumps(data, ensure_ascii=False), file=stdout, flush=True)
        return
    console = Console(stderr=True, markup=False, emoji=False, soft_wrap=True)
    kind = "infeasible" if data["status"] == "infeasible" else "error"
    console.print(Text.assemble((f"{kind}:", "bold red"), f" {data['message']}"))


def qr_code(text: str) -> Text:
    """Return a QR code with its quiet zone of four modules, two rows of modules a line."""
    import segno

    rows = [list(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=4)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    halves = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
    pairs = zip(rows[::2], rows[1::2], strict=True)
    lines = ["".join(halves[pair] for pair in zip(*two, strict=True)) for two in pairs]
    # Black on white in every theme: scanners expect that.
    return Text("\n".join(lines), style="#000000 on #ffffff")


class RichProgress:
    """Progress on stderr: a live line in a terminal, plain lines elsewhere, nothing if quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._live: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> RichProgress:
        if not self._quiet and self._console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._live.start()
            self._task = self._live.add_task("Starting", total=None, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, text: str) -> None:
        """Announce the next step."""
        if self._live is not None:
            self._live.reset(self._task, description=text, total=None, note="")
        elif not self._quiet:
            self._console.print(text, markup=False, highlight=False)

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Show how far the step is; plain output stays clean and does not repeat itself."""
        if self._live is not None:
            self._live.update(self._task, completed=done, total=total, note=note)

    def show_address(self, address: str, *, is_for_phones: bool) -> None:
        """Show the address, ``quiet`` or not: without it nobody can do what is waited for."""
        console = self._console if self._live is None else self._live.console
        if is_for_phones and self._live is not None:
            code = qr_code(address)
            if max(map(len, code.plain.splitlines())) <= console.width:
                console.print(code)
        console.print(address, markup=False, highlight=False, soft_wrap=True)
