"""``edgesdk compile`` and ``edgesdk plan``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgesdk.cli.app import app, command
from edgesdk.cli.console import Answer
from edgesdk.cli.options import (
    AcceleratorOption,
    BinaryOption,
    DelegateOption,
    DevicesOption,
    DownloadOption,
    DropOption,
    EffortOption,
    EnergyOption,
    LatencyOption,
    MemoryOption,
    PickleOption,
    PythonOption,
    SchemeOption,
    SizeOption,
    SshConfigOption,
    TargetOption,
    TaskArgument,
    TimeOption,
    WorkersOption,
)
from edgesdk.progress import watching

if TYPE_CHECKING:
    from edgesdk.profiling.bench import Bench
    from edgesdk.result import CompileResult

PlanOption = Annotated[
    Path | None, typer.Option("--plan", help="Replay this plan instead of searching for one.")
]
CandidatesOnOption = Annotated[
    str | None,
    typer.Option(
        "--on", help="Measure every candidate there: local, ssh:USER@HOST[:PORT], adb[:SERIAL]."
    ),
]


@command(app, "compile")
def compile_command(
    *, task: TaskArgument, device: DevicesOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="The artifact folder to write.")],
    target: TargetOption = None, delegate: DelegateOption = None,
    latency: LatencyOption = None, memory: MemoryOption = None,
    size: SizeOption = None, download: DownloadOption = None, energy: EnergyOption = None,
    max_drop: DropOption = None, scheme: SchemeOption = None,
    plan: PlanOption = None, on: CandidatesOnOption = None,
    binary: BinaryOption = None, python: PythonOption = None, ssh_config: SshConfigOption = None,
    min_delegated: Annotated[
        str | None,
        typer.Option(
            "--min-delegated", help="Least share of operators that a delegate executes: 90%."
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            help="Also run it on this older runtime and say in the manifest whether it runs there: "
            "tflite-runtime.",
        ),
    ] = None,
    effort: EffortOption = "standard", time: TimeOption = None,
    accelerator: AcceleratorOption = "auto", workers: WorkersOption = "1",
    allow_pickle: PickleOption = False,
) -> Answer:  # fmt: skip
    """Make an artifact that keeps the budget on the device, prove it, or say why none can.

    All conditions hold together. Exit code 3 means that nothing fits: the message names the limit
    that binds and the plan that comes nearest, and nothing is written.

    Example: edgesdk compile demo:digits --device host --size 30% --max-drop 2% -o out
    """
    from edgesdk.budget import Budget, parse_share
    from edgesdk.document import read_json
    from edgesdk.effort import Effort
    from edgesdk.errors import UsageError
    from edgesdk.pipeline import compile_task
    from edgesdk.plan import Plan
    from edgesdk.task_source import load_task

    budget = Budget.parse(
        latency=latency, memory=memory, size=size,
        download=download, energy=energy, max_drop=max_drop,
    )  # fmt: skip
    bench = _bench(on, binary=binary, python=python, ssh_config=ssh_config)
    result = compile_task(
        load_task(task, allow_pickle=allow_pickle),
        device=device,
        target=target,
        delegate=delegate,
        budget=budget,
        effort=Effort.parse(effort, time),
        plan=read_json(Plan, plan, error=UsageError) if plan else None,
        accelerator=accelerator,
        bench=bench,
        schemes=scheme or (),
        field_runtime=runtime,
        min_delegated=None if min_delegated is None else parse_share(min_delegated),
        out=out,
        workers=workers,
        progress=watching.get(),
    )
    if bench is not None:
        _keep_measurement(out)
    return Answer(data=result.to_json(), show=lambda console: show_result(result, console))


def _bench(
    on: str | None, *, binary: Path | None, python: str | None, ssh_config: Path | None
) -> Bench | None:
    """Return where candidates are measured, None where nobody asked for it."""
    from edgesdk.errors import UsageError
    from edgesdk.profiling.bench import Bench

    if on is not None:
        return Bench(on=on, binary=binary, python=python, ssh_config=ssh_config)
    if binary or python or ssh_config:
        raise UsageError("--binary, --python and --ssh-config are for --on RUNNER")
    return None


def _keep_measurement(out: Path) -> None:
    """Keep what the finished artifact's measurement says in the local store."""
    from edgesdk.artifact import read_manifest
    from edgesdk.profiling.store import default_store

    manifest = read_manifest(out)
    if manifest.measurement is not None:
        default_store().add(manifest.measurement, label=manifest.label)


@command(app, "plan")
def plan_command(
    *, task: TaskArgument, device: DevicesOption, target: TargetOption = None,
    delegate: DelegateOption = None,
    latency: LatencyOption = None, memory: MemoryOption = None, size: SizeOption = None,
    download: DownloadOption = None, energy: EnergyOption = None, max_drop: DropOption = None,
    effort: EffortOption = "standard", time: TimeOption = None, scheme: SchemeOption = None,
    accelerator: AcceleratorOption = "auto", workers: WorkersOption = "1",
    allow_pickle: PickleOption = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the plan there, for compile --plan.")
    ] = None,
) -> Answer:  # fmt: skip
    """Decide what to do for a budget and explain it; nothing is trained or emitted.

    Everything is judged by predictions; compile also measures, corrects and may decide otherwise.

    Example: edgesdk plan demo:digits --device nucleo_h7a3zi_q --memory 32KB -o plan.json
    """
    from edgesdk.budget import Budget
    from edgesdk.document import to_json
    from edgesdk.effort import Effort
    from edgesdk.output import check_output, write_file
    from edgesdk.pipeline import plan_task
    from edgesdk.task_source import load_task

    budget = Budget.parse(
        latency=latency, memory=memory, size=size,
        download=download, energy=energy, max_drop=max_drop,
    )  # fmt: skip
    destination = check_output(out) if out else None
    result = plan_task(
        load_task(task, allow_pickle=allow_pickle),
        device=device,
        target=target,
        delegate=delegate,
        budget=budget,
        effort=Effort.parse(effort, time),
        accelerator=accelerator,
        schemes=scheme or (),
        workers=workers,
        progress=watching.get(),
    )
    if destination is not None:
        write_file(destination, to_json(result.plan))
    return Answer(data=result.to_json(), show=lambda console: show_result(result, console))


def show_result(result: CompileResult, console: Console) -> None:
    """Show a result to a person: the outcome, verdicts, figures, reasons and what to do next."""
    from edgesdk.figure import TITLES
    from edgesdk.report.words import show_figure

    made = result.artifact is not None
    outcome = "keeps its budget" if result.verdicts and made else "made" if made else "is the plan"
    where = f" → {result.artifact}" if made else ""
    devices = " and ".join((result.device, *result.elsewhere))
    what = f" for {devices} ({result.target}) {outcome}{where}"
    console.print(Text.assemble((result.plan.option, "bold"), what), soft_wrap=True)
    for caution in result.cautions:
        console.print(Text.assemble(("Caution: ", "bold yellow"), caution), soft_wrap=True)
    if result.verdicts:
        console.print(_budget_table(result))
    figures = Table("figure", "original", "predicted", "verified", "measured", title="Figures")
    proven = {**result.interpreted, **result.verified}
    sections = (result.baseline, result.predicted, proven, result.measured)
    for name, title in TITLES.items():
        if any(name in section for section in sections):
            figures.add_row(title, *(show_figure(name, section.get(name)) for section in sections))
    console.print(figures)
    if result.elsewhere:
        console.print(_elsewhere_table(result))
    if result.parity is not None:
        scored = any("accuracy" in section for section in sections)
        what = "Accuracy and parity" if scored else "Accuracy: not measured. Parity"
        console.print(f"{what}: {result.parity.status} ({result.parity.runtime})", soft_wrap=True)
    for reason in result.plan.reasons:
        console.print(f"- {reason}", highlight=False)
    if made:
        out = shlex.quote(str(result.artifact))
        console.print(f"Next: edgesdk report {out} draws this as a page", soft_wrap=True)


def _elsewhere_table(result: CompileResult) -> Table:
    """Return what is predicted on the fleet's other devices."""
    from edgesdk.figure import TITLES
    from edgesdk.report.words import show_figure

    table = Table("figure", *result.elsewhere, title="Predicted on the other devices")
    for name, title in TITLES.items():
        figures = [there.get(name) for there in result.elsewhere.values()]
        if any(figures):
            table.add_row(title, *(show_figure(name, figure) for figure in figures))
    return table


def _budget_table(result: CompileResult) -> Table:
    """Return each condition with the figure that judges it; "not yet": compile will know."""
    from edgesdk.report.words import show_condition, show_figure, show_limit

    table = Table("condition", "limit", "judged by", "standing", "met", title="Budget")
    for verdict in result.verdicts:
        table.add_row(
            show_condition(verdict.condition),
            show_limit(verdict.condition),
            show_figure(verdict.condition.figure, verdict.figure),
            verdict.figure.standing if verdict.figure else "unknown",
            "yes" if verdict.met else "not yet" if result.artifact is None else "no",
        )
    return table
