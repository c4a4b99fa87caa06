"""ResNet20 on CIFAR-10, the heavier real run: int8 alone, then a latency no int8 file reaches.

    python benchmarks/resnet20.py OUT [--target executorch --target tflite]

Needs the trained weights and images (EDGESDK_DATA, see benchmarks/tasks/cifar10.py). For each
target: the int8 artifact under a size budget of 30 % of the float file, then a latency budget of
0.6 of that artifact's time, both expressed against the float artifact timed in the same rounds.
Afterwards the two finished artifacts are timed once more, alternating, and the ratio is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from timed import latency_ratio

from edgesdk.artifact import read_manifest
from edgesdk.budget import Budget, Relative
from edgesdk.cli.console import RichProgress, quiet_libraries, split_stdout
from edgesdk.errors import BudgetInfeasible
from edgesdk.pipeline import compile_task
from edgesdk.result import CompileResult
from edgesdk.task import Task
from edgesdk.task_source import load_task
from edgesdk.verification import open_artifact

TASK = f"{Path(__file__).parent / 'tasks' / 'cifar10.py'}:resnet20"
SPEED = 0.6


def main() -> None:
    """Run both budgets for every target and print one JSON line for each artifact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", action="append", choices=["executorch", "tflite"])
    arguments = parser.parse_args()
    stdout = split_stdout()
    quiet_libraries()
    task = load_task(TASK)
    with RichProgress(quiet=False) as progress:
        for target in arguments.target or ["executorch", "tflite"]:
            folder = arguments.out / target
            for row in compare(task, target, folder, progress):
                print(json.dumps(row), file=stdout, flush=True)


def compare(task: Task, target: str, out: Path, progress: RichProgress) -> list[dict[str, object]]:
    """Return the figures of the int8 artifact and of the faster one."""
    budget = Budget(size_bytes=Relative(fraction=0.30))
    int8 = compile_task(
        task, device="host", target=target, budget=budget, out=out / "int8", progress=progress
    )
    share = int8.measured["latency_ms"].value / int8.baseline["latency_ms"].value
    faster = Budget(latency_ms=Relative(fraction=SPEED * share))
    try:
        pruned = compile_task(
            task, device="host", target=target, budget=faster, out=out / "faster", progress=progress
        )
    except BudgetInfeasible as refusal:
        return [row(int8), {"target": target, "infeasible": str(refusal)}]
    faster_one, int8_one = (
        lambda folder=out / name: open_artifact(folder, read_manifest(folder))
        for name in ("faster", "int8")
    )
    ratio = latency_ratio(faster_one, int8_one, task.example_inputs)
    return [row(int8), {**row(pruned), "latency_over_int8": round(ratio, 3), "asked": SPEED}]


def row(result: CompileResult) -> dict[str, object]:
    """Return an artifact's figures, with size and latency as ratios to the float baseline."""
    size, latency = result.verified["size_bytes"].value, result.measured["latency_ms"].value
    return {
        "target": result.target,
        "option": result.plan.option,
        "original_accuracy": round(result.baseline["accuracy"].value, 4),
        "accuracy": round(result.verified["accuracy"].value, 4),
        "size_bytes": int(size),
        "size_over_float": round(size / result.baseline["size_bytes"].value, 3),
        "latency_ms": round(latency, 3),
        "latency_over_float": round(latency / result.baseline["latency_ms"].value, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
