"""Does a latency budget that ``compile`` calls kept hold when it is measured again?

    python benchmarks/loop.py demo:digits --target tflite -o folder

Compiles the task for this machine under twelve latency budgets, from 0.15 to 1.0 of the float
artifact. Each artifact that kept its budget is then timed again, in turn with the float one in the
same rounds: its ratio may be 1.05 of the budget's at most. A small grid (every group of channels at
the same share of its width, in every precision) is emitted and timed the same way: a budget that
the grid keeps with more than 5 % to spare has to be kept by ``compile``, too. Exit code 1 where
either is missed. Every finished step is in ``folder/loop.json``; the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from coarse_grid import SHARES, uniform_network
from remembered import Remembered
from timed import latency_ratio

from edgesdk.artifact import read_manifest
from edgesdk.budget import Budget
from edgesdk.cache import Cache, default_root
from edgesdk.effort import Effort
from edgesdk.errors import BudgetInfeasible, UnsupportedModel
from edgesdk.pipeline import compile_task
from edgesdk.profiling.bench import Bench
from edgesdk.progress import Silent
from edgesdk.running.process import ArtifactProcess
from edgesdk.scheme import Scheme
from edgesdk.stages.compression import compressed_model
from edgesdk.stages.emission import Emitted, emit
from edgesdk.stages.proof import start
from edgesdk.stages.request import Request, resolve
from edgesdk.task_source import load_task
from edgesdk.verification import open_artifact

DEVICE = "host"
BUDGETS = tuple(round(0.15 + 0.85 * step / 11, 3) for step in range(12))
MOST = 1.05
SPARE = 0.95
INFEASIBLE = "infeasible"
REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One run: what is compiled, and the file that remembers what was finished."""

    task: str
    request: Request
    effort: Effort
    folder: Path

    def remembered(self, name: str, work: Callable[[], float | str]) -> float | str:
        """Return the answer to a step, from the file if it was found before."""
        answer = Remembered(path=self.folder / "loop.json").cell(name, work)
        print(f"{name}: {answer}", flush=True)
        return answer

    def artifact(self, budget: float) -> Path:
        """Return where the artifact for a budget lies, if one kept it."""
        return self.folder / f"budget-{budget}"

    def compile(self, budget: float) -> str:
        """Return how compiling for a share of the float latency ended."""
        if self.artifact(budget).exists():  # sealed before the step was remembered
            return "ok"
        try:
            return compile_task(
                self.task,
                device=DEVICE,
                target=self.request.target.name,
                budget=Budget.parse(latency=f"{100 * budget:.1f}%"),
                effort=self.effort,
                bench=Bench(on="local"),
                out=self.artifact(budget),
            ).status
        except BudgetInfeasible:
            return INFEASIBLE

    def original(self) -> Emitted:
        """Return the float original, emitted as the baseline is."""
        request = self.request
        model = compressed_model(request, request.task.model, request.baseline_scheme)
        return emit(request, model, "original")

    def ratio(self, open_other: Callable[[], ArtifactProcess]) -> float:
        """Return the median ratio of another artifact's latency to the float one's."""
        original, inputs = self.original(), self.request.task.example_inputs
        return latency_ratio(open_other, lambda: self.started(original), inputs)

    def started(self, emitted: Emitted) -> ArtifactProcess:
        """Return the process that runs an emitted network."""
        return start(self.request, emitted.folder, emitted.emission)

    def again(self, budget: float) -> float:
        """Return the ratio of a finished artifact, measured anew."""
        folder = self.artifact(budget)
        manifest = read_manifest(folder)
        return self.ratio(lambda: open_artifact(folder, manifest))

    def uniform(self, share: float, scheme: Scheme) -> float | str:
        """Return the ratio of the network with that share of every group's channels, if a file
        can be made of it."""
        module = uniform_network(self.request.task, share)
        model = compressed_model(self.request, module, scheme)
        try:
            emitted = emit(self.request, model, f"uniform {share}")
        except UnsupportedModel:  # int4, where no layer has the inputs for it
            return REFUSED
        return self.ratio(lambda: self.started(emitted))


def misses(loop: Loop) -> Iterator[str]:
    """Yield a sentence for each promise that does not hold."""
    outcomes = {b: loop.remembered(f"compile {b}", partial(loop.compile, b)) for b in BUDGETS}
    for budget, outcome in outcomes.items():
        if outcome == INFEASIBLE:
            continue
        ratio = float(loop.remembered(f"again {budget}", partial(loop.again, budget)))
        print(f"  {ratio / budget:.3f} of the budget")
        if ratio > MOST * budget:
            yield f"budget {budget} was called kept, and is {ratio:.3f} when measured again"
    grid = {
        f"{share} of all channels in {scheme}": loop.remembered(
            f"grid {share} {scheme}", partial(loop.uniform, share, scheme)
        )
        for scheme in loop.request.schemes
        for share in SHARES
    }
    made = {name: float(ratio) for name, ratio in grid.items() if ratio != REFUSED}
    name, fastest = min(made.items(), key=lambda item: item[1])
    for budget, outcome in outcomes.items():
        if outcome == INFEASIBLE and fastest < SPARE * budget:
            yield f"budget {budget} was called infeasible, and {name} takes {fastest:.3f}"


def loop_for(task: str, target: str, effort: Effort, folder: Path) -> Loop:
    """Return the run of a task and target in a folder."""
    request = resolve(
        load_task(task), device=DEVICE, target=target, budget=Budget(), effort=effort,
        accelerator="cpu", cache=Cache(default_root()), progress=Silent(), needs_toolchain=True,
    )  # fmt: skip
    return Loop(task=task, request=request, effort=effort, folder=folder)


def main() -> int:
    """Run what is not finished, print every miss, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--target", required=True)
    parser.add_argument("--effort", default="quick")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    effort = Effort.parse(options.effort, None)
    found = list(misses(loop_for(options.task, options.target, effort, options.out)))
    for sentence in found:
        print(f"MISSED: {sentence}")
    print(f"{len(found)} of {len(BUDGETS)} budgets missed")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
