"""``edgesdk report``: artifacts and their measurements as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgesdk.cli.app import app, command
from edgesdk.cli.console import Answer
from edgesdk.progress import watching

if TYPE_CHECKING:
    from edgesdk.report.data import ReportData


@command(app, "report")
def report_command(
    artifacts: Annotated[
        list[Path], typer.Argument(metavar="OUT...", help="The artifact folders, side by side.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The HTML file to write; nothing is overwritten.")
    ] = Path("report.html"),
    measurement: Annotated[
        list[Path] | None,
        typer.Option("--measurement", help="A measurement of one of them, as JSON; repeatable."),
    ] = None,
    store: Annotated[
        bool,
        typer.Option("--store/--no-store", help="Also the measurements of them in the local store"),
    ] = True,
) -> Answer:
    """Draw artifacts as one HTML page that needs no network: verdicts, charts, reasons.

    Hashes are checked first. Measurements are those in the local store and in the files named. One
    taken as an artifact is meant to run judges its budget again. --json prints all figures.

    Example: edgesdk report out -o report.html
    """
    from edgesdk.document import to_builtins
    from edgesdk.output import check_output, write_file
    from edgesdk.profiling.store import default_store
    from edgesdk.report.html import render_page
    from edgesdk.report.reading import read_report

    destination = check_output(out)
    watching.get().step("Reading the artifacts")
    stored = default_store().all() if store else ()
    data = read_report(artifacts, measurement or (), stored)
    watching.get().step("Drawing the report")
    write_file(destination, render_page(data))
    return Answer(
        data={"status": "ok", "report": str(destination), **to_builtins(data)},
        show=lambda console: _show(data, destination, console),
    )


def _show(data: ReportData, destination: Path, console: Console) -> None:
    from edgesdk.figure import TITLES
    from edgesdk.report.words import show_figure

    table = Table("", *(artifact.label for artifact in data.artifacts))
    table.add_row("Budget", *(artifact.status for artifact in data.artifacts))
    for row in data.comparison:
        table.add_row(TITLES[row.figure], *(show_figure(row.figure, item) for item in row.best))
    console.print(table)
    console.print(f"→ {destination}", soft_wrap=True, highlight=False)
