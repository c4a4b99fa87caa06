"""Is the planner's network better than others' that is as fast, measured on this machine?

The limit is a latency so many times below that of the task's network in int8. ``compile`` keeps it
its own way. Torch-Pruning (its ``BasePruner`` with ``GroupTaylorImportance``, every layer by the
same share, or the least important channels wherever they are) removes just so much that its
network in int8, emitted and measured the same way, keeps it too; then it is trained by the same
step and emitted in the same int8. All are scored on the test images by LiteRT.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch_pruning
from intervals import paired_difference
from labelled import Labelled, load_labelled
from numpy.typing import NDArray
from planner_rank import DEVICE, TARGET, request_for
from remembered import Remembered
from timed import latency_ratio
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from edgesdk.artifact import read_manifest
from edgesdk.budget import Budget
from edgesdk.compress.accelerator import seeded
from edgesdk.compress.distil import default_distil, distil
from edgesdk.compress.training import count_training
from edgesdk.document import read_json
from edgesdk.effort import EFFORTS
from edgesdk.errors import BudgetInfeasible
from edgesdk.pipeline import compile_task
from edgesdk.plan import Distil, Plan
from edgesdk.running.adapter import artifact_predict
from edgesdk.running.process import ArtifactProcess
from edgesdk.scheme import Scheme
from edgesdk.stages.compression import compressed_model
from edgesdk.stages.emission import emit
from edgesdk.stages.proof import start
from edgesdk.stages.request import Request
from edgesdk.task import Task
from edgesdk.task_check import training_batches
from edgesdk.verification import open_artifact

SPEEDS = (1.0, 1.4, 1.8)
"""How many times faster than the original in int8."""

SCHEMES: tuple[Scheme, ...] = ("fp32", "int8")
OTHERS = {"uniform Taylor": False, "global Taylor": True}
MULTIPLE = 8
MOST_PRUNED = 0.875
SHARES = tuple(round(0.05 * step, 2) for step in range(2, 17))
"""Shares to prune that are tried, the smallest first: rounded to multiples of 8, some are equal."""

Open = Callable[[], ArtifactProcess]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contest:
    """One task: what is compiled, and the original in float and in int8 beside it."""

    labelled: Labelled
    request: Request
    folder: Path

    def opened(self, module: nn.Module, scheme: Scheme, key: str) -> Open:
        """Return what runs a module emitted in a scheme."""
        model = compressed_model(self.request, module, scheme)
        emitted = emit(self.request, model, key)
        return lambda: start(self.request, emitted.folder, emitted.emission)

    def int8(self) -> Open:
        """Return what runs the original in int8."""
        return self.opened(self.request.task.model, "int8", "original")

    def over_int8(self, other: Open, *, rounds: int = 3) -> float:
        """Return an artifact's latency, as a share of the original's in int8."""
        inputs = self.request.task.example_inputs
        return latency_ratio(other, self.int8(), inputs, rounds=rounds)

    def right(self, other: Open) -> str:
        """Return which test images an artifact names right, a digit each."""
        with other() as process:
            answers = self.labelled.answers(artifact_predict(process), "test")
        return "".join("1" if right else "0" for right in answers.correct.tolist())

    def artifact(self, speed: float, seed: int) -> Path:
        """Return the folder of the planner's artifact."""
        return self.folder / f"{self.labelled.name}-{speed}-{seed}"

    def compiled(self, speed: float, share: float, seed: int) -> dict[str, object]:
        """Return how ``compile`` ended; ``share`` is int8's latency over the float original's."""
        out, first = self.artifact(speed, seed), self.artifact(speed, 0)
        plan = replace(read_json(Plan, first / "plan.json"), seed=seed) if seed else None
        limit = Budget.parse(latency=f"{100 * share / speed:.3f}%") if not seed else None
        if not out.exists():
            try:
                compile_task(
                    self.labelled.task, device=DEVICE, target=TARGET, budget=limit, plan=plan,
                    schemes=SCHEMES, out=out,
                )  # fmt: skip
            except BudgetInfeasible as refusal:
                return {"infeasible": str(refusal)}
        found = read_json(Plan, out / "plan.json")
        return {"option": found.option, **self.judged(partial(_opened, out))}

    def pruned(self, share: float, *, everywhere: bool) -> nn.Module:
        """Return what Torch-Pruning leaves of the original."""
        task = self.request.task
        model = with_gradients(task)
        classes = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
        pruner = torch_pruning.pruner.BasePruner(
            model, task.example_inputs, importance=torch_pruning.importance.GroupTaylorImportance(),
            global_pruning=everywhere, pruning_ratio=share, max_pruning_ratio=MOST_PRUNED,
            round_to=MULTIPLE, ignored_layers=[classes],
        )  # fmt: skip
        pruner.step()
        model.zero_grad(set_to_none=True)
        return model.eval()

    def share_for(self, speed: float, *, everywhere: bool) -> float | None:
        """Return the least share to prune that is as fast, None where none is."""

        before: list[int] = []
        for share in SHARES:
            module = self.pruned(share, everywhere=everywhere)
            shapes = [parameter.numel() for parameter in module.parameters()]
            if shapes == before:
                continue
            before = shapes
            other = self.opened(module, "int8", f"pruned {share} {everywhere}")
            if self.over_int8(other, rounds=1) <= 1 / speed:
                return share
        return None

    def trained(self, share: float, seed: int, *, everywhere: bool) -> dict[str, object]:
        """Return Torch-Pruning's network, trained and emitted as the planner's are."""
        task = self.request.task
        module = self.pruned(share, everywhere=everywhere)
        step = default_step(self.request)
        module = distil(
            copy.deepcopy(module), task.model, task, step, device=torch.device("cpu"), seed=seed
        )
        key = f"trained {share} {everywhere} {seed} {step}"
        return self.judged(self.opened(module, "int8", key))

    def judged(self, other: Open) -> dict[str, object]:
        """Return an artifact's latency over int8's, and which test images it names right."""
        return {"latency": self.over_int8(other), "right": self.right(other)}


def _opened(folder: Path) -> ArtifactProcess:
    return open_artifact(folder, read_manifest(folder))


def with_gradients(task: Task) -> nn.Module:
    """Return a copy of the network with the gradients of an epoch's cross-entropy, for Taylor."""
    model = copy.deepcopy(task.model).eval()
    with seeded(torch.device("cpu"), task.seed):
        for batch in training_batches(task):
            assert batch.targets is not None
            F.cross_entropy(model(*batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]
    return model


def default_step(request: Request) -> Distil:
    """Return the training that ``compile`` gives pruned networks of this task."""
    _, samples = count_training(request.task)
    visits = EFFORTS[request.effort.name].sample_visits
    return default_distil(request.task, samples=samples, sample_visits=visits)


def field(names: Sequence[str], seeds: int, memory: Remembered) -> Iterator[str]:
    """Yield a table for each task: who is how accurate at the same latency."""
    for name in names:
        labelled = load_labelled(name)
        contest = Contest(
            labelled=labelled,
            request=request_for(labelled, SCHEMES),
            folder=memory.path.parent / "field",
        )
        yield from (f"{name}, {seeds} seeds:", "")
        yield "| speed | who | latency over int8 | accuracy | planner's lead (95 %), points |"
        yield "|---|---|---|---|---|"
        for speed in SPEEDS:
            yield from rows(contest, speed, seeds, memory)
        yield ""


def rows(contest: Contest, speed: float, seeds: int, memory: Remembered) -> Iterator[str]:
    """Yield the lines of one speed."""
    name = contest.labelled.name
    int8 = memory.cell(f"field {name} int8", lambda: contest.judged(contest.int8()))
    original = contest.opened(contest.request.task.model, "fp32", "original")
    share = memory.cell(f"field {name} float", lambda: 1 / contest.over_int8(original))
    ours = [
        memory.cell(
            f"field {name} {speed} planner {seed}", partial(contest.compiled, speed, share, seed)
        )
        for seed in range(seeds)
    ]
    if any("infeasible" in cell for cell in ours):
        yield f"| {speed} | planner | refused | – | – |"
        return
    yield f"| {speed} | planner: {ours[0]['option']} | {shown(ours)} | – |"
    if speed == 1.0:
        yield f"| {speed} | int8 alone | {shown([int8])} | {lead(ours, [int8])} |"
        return
    for other, everywhere in OTHERS.items():
        found = memory.cell(
            f"field {name} {speed} {other} share",
            partial(contest.share_for, speed, everywhere=everywhere),
        )
        if found is None:
            yield f"| {speed} | {other} | never as fast | – | – |"
            continue
        theirs = [
            memory.cell(
                f"field {name} {speed} {other} {seed}",
                partial(contest.trained, found, seed, everywhere=everywhere),
            )
            for seed in range(seeds)
        ]
        yield f"| {speed} | {other}, {100 * found:.0f} % | {shown(theirs)} | {lead(ours, theirs)} |"


def answers(cells: Sequence[dict[str, object]]) -> NDArray[np.bool_]:
    """Return which images each seed names right, ``[seeds, images]``."""
    return np.array([[digit == "1" for digit in str(cell["right"])] for cell in cells])


def shown(cells: Sequence[dict[str, object]]) -> str:
    """Return latency and accuracy, with the spread over seeds, for the table."""
    latency = np.mean([cell["latency"] for cell in cells])
    scores = 100 * answers(cells).mean(1)
    spread = f" ± {scores.std(ddof=1):.2f}" if len(scores) > 1 else ""
    return f"{latency:.2f} | {scores.mean():.2f}{spread}"


def lead(ours: Sequence[dict[str, object]], theirs: Sequence[dict[str, object]]) -> str:
    """Return how much more of the images we name right."""
    return paired_difference(answers(ours), answers(theirs)).shown(scale=100)
