"""The main job on real input: ``demo:digits`` compiled under a budget for every kind of device."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgesdk.budget import Budget
from edgesdk.cli.console import RichProgress, quiet_libraries, split_stdout
from edgesdk.compress.accelerator import one_thread
from edgesdk.errors import BudgetInfeasible, OutputError
from edgesdk.figure import FigureName
from edgesdk.pipeline import compile_task
from edgesdk.report.words import show_figure
from edgesdk.result import CompileResult
from edgesdk.task_source import load_task


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request of the demo; the budget is written as on the command line."""

    device: str
    target: str
    budget: Mapping[str, str]

    @property
    def name(self) -> str:
        """The artifact folder's name."""
        return f"{self.device}-{self.target}"


# Tight enough to mean something: the float model misses every one of them.
JOBS = (
    Job(device="samsung_galaxy_s24", target="tflite", budget={"size": "45%", "max_drop": "2%"}),
    Job(device="samsung_galaxy_s24", target="executorch", budget={"size": "30%", "max_drop": "3%"}),
    Job(device="iphone_15_pro", target="coreml", budget={"size": "60%", "max_drop": "3%"}),
    Job(device="jetson_orin_nano", target="executorch", budget={"size": "45%", "max_drop": "2%"}),
    Job(
        device="nucleo_h7a3zi_q",
        target="tflite",
        budget={"memory": "40%", "size": "15%", "max_drop": "3%"},
    ),
    Job(device="host", target="executorch", budget={"latency": "70%", "max_drop": "3%"}),
    Job(device="host", target="tflite", budget={"latency": "80%", "max_drop": "3%"}),
)
_SHOWN: tuple[FigureName, ...] = (
    "latency_ms",
    "size_bytes",
    "memory_bytes",
    "accuracy",
    "accuracy_drop",
)
INFEASIBLE = Job(device="nucleo_h7a3zi_q", target="tflite", budget={"size": "2KB"})


def main() -> None:
    """Compile every job into the folder given (default ``demo-out``) and print one table."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    if out.exists():
        raise SystemExit(f"{OutputError(f'{out} exists already', next_step='remove it first')}")
    quiet_libraries()
    console = Console(file=split_stdout(), width=180)
    start = time.monotonic()
    task = load_task("demo:digits")
    rows = []
    # The network is so small that a second thread costs more than it brings.
    with RichProgress(quiet=False) as progress, one_thread():
        for job in (*JOBS, INFEASIBLE):
            progress.step(f"{job.device} → {job.target} {_shown(job)}")
            try:
                result = compile_task(
                    task,
                    device=job.device,
                    target=job.target,
                    budget=Budget.parse(**job.budget),
                    out=out / job.name if job is not INFEASIBLE else out / "infeasible",
                    progress=progress,
                )
            except BudgetInfeasible as refusal:
                result = refusal.result
            rows.append((job, result))
    console.print(_table(rows))
    refused = rows[-1][1]
    console.print(f"Infeasible, as it should be: {refused.reason}", markup=False)
    console.print(f"{time.monotonic() - start:.0f} s")
    if any((result.status == "ok") == (job is INFEASIBLE) for job, result in rows):
        raise SystemExit("a request of the demo did not end as it should")


def _shown(job: Job) -> str:
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in job.budget.items())


def _table(rows: list[tuple[Job, CompileResult]]) -> Table:
    table = Table(title="demo:digits, one budget per device", show_lines=True)
    for column in ("device", "target", "budget", "plan", "predicted", "verified", "measured"):
        table.add_column(column)
    table.add_column("artifact", overflow="fold")
    for job, result in rows:
        table.add_row(
            job.device,
            job.target,
            _shown(job),
            result.plan.option,
            _figures(result, "predicted"),
            _figures(result, "verified"),
            _figures(result, "measured"),
            str(result.artifact) if result.artifact else f"none: {result.status}",
        )
    return table


def _figures(result: CompileResult, section: str) -> str:
    figures = getattr(result, section)
    if section == "verified":
        figures = {**result.interpreted, **figures}
    # Once the artifact itself was scored, what was predicted of its accuracy says nothing more.
    known = {**result.interpreted, **result.verified} if section == "predicted" else {}
    lines = [
        f"{name} {show_figure(name, figures[name])}"
        for name in _SHOWN
        if name in figures and not (name == "accuracy_drop" and name in known)
    ]
    if section == "verified" and result.parity and result.parity.status != "verified":
        lines.append(f"accuracy: {result.parity.status}")
    return "\n".join(lines) or "–"


if __name__ == "__main__":
    main()
