"""Are budgets kept that were called kept, and are those given up that nothing keeps?

On this machine benchmarks/loop.py asks for latencies, and times what came out again. For other
devices sizes are asked for: the bytes on disk are counted again and the artifact is verified; what
is refused is held against a coarse grid of networks, each emitted in every precision; and a limit
far below the smallest of them has to be refused before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from coarse_grid import SHARES, uniform_network
from loop import BUDGETS, INFEASIBLE, SPARE, loop_for, misses
from recovery import TASKS
from remembered import Remembered

from edgesdk.artifact import read_manifest
from edgesdk.budget import Budget
from edgesdk.cache import Cache, default_root
from edgesdk.effort import Effort
from edgesdk.errors import BudgetInfeasible
from edgesdk.pipeline import compile_task
from edgesdk.progress import Silent
from edgesdk.stages.compression import compressed_model
from edgesdk.stages.emission import emit
from edgesdk.stages.request import resolve
from edgesdk.task_source import load_task
from edgesdk.verification import verify_artifact

HOST_TARGETS = ("tflite", "executorch")
PREDICTED = (
    ("samsung_galaxy_s24", "tflite"),
    ("samsung_galaxy_s24", "executorch"),
    ("nucleo_h7a3zi_q", "tflite"),
    ("iphone_15_pro", "coreml"),
    ("jetson_orin_nano", "onnx"),
)
SIZES = (0.6, 0.45, 0.3, 0.2)
"""Limits on the size, as shares of the float file."""

IMPOSSIBLE = 0.01
_TRAINING = ("Recovering", "Training", "Timing an epoch")


@dataclass
class Listening(Silent):
    """Progress that remembers whether anything was trained."""

    trained: list[str] = field(default_factory=list)

    def step(self, text: str) -> None:
        """Remember the steps that train."""
        if text.startswith(_TRAINING):
            self.trained.append(text)


def compiled(task: str, device: str, target: str, share: float, out: Path) -> dict[str, Any]:
    """Return how a limit on the size was answered, what lies on disk, and what was trained."""
    progress = Listening()
    effort = Effort(name="standard" if share == IMPOSSIBLE else "quick")
    try:
        result = compile_task(
            task,
            device=device,
            target=target,
            budget=Budget.parse(size=f"{100 * share:g}%"),
            effort=effort,
            out=out,
            progress=progress,
        )
    except BudgetInfeasible as refusal:
        baseline = refusal.result.baseline["size_bytes"].value
        return {"status": INFEASIBLE, "float": baseline, "trained": len(progress.trained)}
    manifest = read_manifest(out)
    paths = [path for name in manifest.files for path in _files(out / name)]
    return {
        "status": result.status,
        "option": result.plan.option,
        "float": result.baseline["size_bytes"].value,
        "bytes": sum(path.stat().st_size for path in paths),
        "verification": verify_artifact(out, load_task(task)).status,
        "trained": len(progress.trained),
    }


def _files(path: Path) -> list[Path]:
    return [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]


def smallest(task: str, device: str, target: str) -> float:
    """Return the fewest bytes that a network of the coarse grid takes in any precision."""
    request = resolve(
        load_task(task), device=device, target=target, budget=Budget(), effort=Effort(),
        accelerator="cpu", cache=Cache(default_root()), progress=Silent(), needs_toolchain=True,
    )  # fmt: skip
    found = []
    for share in SHARES:
        module = uniform_network(request.task, share)
        for scheme in request.schemes:
            model = compressed_model(request, module, scheme)
            emitted = emit(request, model, f"uniform {share}")
            paths = [p for name in emitted.emission.files for p in _files(emitted.folder / name)]
            found.append(sum(path.stat().st_size for path in paths))
    return min(found)


def broken(cell: dict[str, Any], share: float, fewest: float | None) -> str | None:
    """Return what an answer promised and did not keep, None where all is well."""
    limit = share * cell["float"]
    if cell["status"] == INFEASIBLE:
        if share == IMPOSSIBLE:
            return f"trained {cell['trained']} times before it refused" if cell["trained"] else None
        spare = fewest is not None and fewest < SPARE * limit
        return f"refused, and the grid has {fewest:.0f} of {limit:.0f} bytes" if spare else None
    if cell["bytes"] > limit:
        return f"called kept with {cell['bytes']} bytes on disk, limit {limit:.0f}"
    if cell["verification"] == "failed":
        return "called kept, and failed verification"
    return "called kept, and nothing can keep it" if share == IMPOSSIBLE else None


def budgets(names: Sequence[str], memory: Remembered) -> Iterator[str]:
    """Yield for each task, device and target how many budgets were kept, and what was broken."""
    folder = memory.path.parent / "budgets"
    yield "| task | device | target | budgets | kept | refused | broken promises |"
    yield "|---|---|---|---|---|---|---|"
    for name in names:
        task = TASKS[name]
        for target in HOST_TARGETS:
            loop = loop_for(task, target, Effort(name="quick"), folder / f"{name}-host-{target}")
            loop.folder.mkdir(parents=True, exist_ok=True)
            wrong = list(misses(loop))
            refused = sum(loop.remembered(f"compile {b}", str) == INFEASIBLE for b in BUDGETS)
            yield row((name, "host", target), len(BUDGETS), refused, wrong)
        for device, target in PREDICTED:
            wrong, refused = [], 0
            for share in (*SIZES, IMPOSSIBLE):
                key = f"{name}-{device}-{target}-{share}"
                work = partial(compiled, task, device, target, share, folder / key)
                cell = memory.cell(f"budgets {key}", work)
                gave_up = cell["status"] == INFEASIBLE
                refused += gave_up
                fewest = None
                if gave_up and share != IMPOSSIBLE:
                    least = partial(smallest, task, device, target)
                    fewest = memory.cell(f"budgets {name}-{device}-{target} smallest", least)
                problem = broken(cell, share, fewest)
                wrong += [f"{100 * share:g} %: {problem}"] if problem else []
            yield row((name, device, target), len(SIZES) + 1, refused, wrong)
    yield ""


def row(where: Sequence[str], count: int, refused: int, wrong: Sequence[str]) -> str:
    """Return the line of a task, a device and a target."""
    cells = (*where, count, count - refused, refused, "; ".join(wrong) or "none")
    return f"| {' | '.join(map(str, cells))} |"
