"""Whoever computes, the results are the same to the last bit, and nobody does while we clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planned import plan_of
from requesting import request_for

import edgesdk
from edgesdk.artifact import sha256_of
from edgesdk.budget import Budget, Relative
from edgesdk.device import DeviceProfile
from edgesdk.document import to_json
from edgesdk.errors import TaskError, UsageError
from edgesdk.plan import Distil, Equalize, Prune, PrunedGroup, Qat
from edgesdk.planner import probing
from edgesdk.planner.sensing import measure_sensitivity
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.progress import Silent
from edgesdk.running import timing
from edgesdk.stages import proof
from edgesdk.stages.compression import compress
from edgesdk.stages.request import Request
from edgesdk.task import Task
from edgesdk.task_check import output_specs
from edgesdk.task_source import load_task
from edgesdk.trace import trace
from edgesdk.workers.here import Here
from edgesdk.workers.job import Job, Workers
from edgesdk.workers.ledger import Ledger
from edgesdk.workers.processes import Processes

TESTS = Path(__file__).parents[1]
BLOBS = f"{TESTS / 'blobs_task.py'}:blobs"
LOPSIDED = f"{TESTS / 'lopsided_task.py'}:lopsided"
SHORTCUTS = f"{TESTS / 'shortcut_task.py'}:shortcuts"

GROUP = PrunedGroup(layer="0", width_before=96, removed=tuple(range(48)))
PRUNE = Prune(ratio=0.5, channel_multiple=4, importance="taylor", groups=(GROUP,))
DISTIL = Distil(epochs=3, learning_rate=0.01, temperature=4.0, alpha=0.5, patience=3)
QAT = Qat(epochs=2, learning_rate=0.001, temperature=4.0, alpha=0.5, patience=2)


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with Processes(2) as workers:
        yield workers


def measured(task: Task, workers: Workers, folder: Path | None = None) -> Sensitivity:
    return measure_sensitivity(
        task,
        trace(task.model, task.example_inputs, name=task.name),
        output_specs(task),
        target="executorch",
        schemes=("fp32", "int8", "int8_dynamic"),
        mixes={"int8_dynamic": ("fp32", "int4_dynamic")},
        channel_multiple=8,
        progress=Silent(),
        workers=workers,
        ledger=Ledger(folder),
    )


@pytest.mark.parametrize("reference", [LOPSIDED, SHORTCUTS])
def test_sensitivities_are_the_same_to_the_last_bit(reference: str, two: Processes) -> None:
    task = load_task(reference)
    here, there = measured(task, Here()), measured(task, two)
    assert to_json(there) == to_json(here)
    assert here.curves
    if reference == SHORTCUTS:
        assert here.blocks
        assert here.moves_batch_norms


def test_an_interrupted_measurement_goes_on_with_other_workers(
    two: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task(BLOBS)
    wanted = measured(task, Here())
    looked: list[probing.Change] = []
    look_at = probing.Probing.look_at

    def interrupted(job: probing.Probing, change: probing.Change) -> probing.Finding:
        looked.append(change)
        if len(looked) == 12:
            raise KeyboardInterrupt
        return look_at(job, change)

    monkeypatch.setattr(probing.Probing, "look_at", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(task, Here(), tmp_path)
    kept = len(list(tmp_path.iterdir()))
    assert kept == 11
    assert to_json(measured(task, two, tmp_path)) == to_json(wanted)
    looked.clear()  # this process has nothing left to look at
    assert to_json(measured(task, Here(), tmp_path)) == to_json(wanted)
    assert looked == []


def rounding(task: Task, device: DeviceProfile, root: Path, workers: Workers) -> Request:
    # The reference target names no quantizer; here it is taken to round as LiteRT's does.
    return replace(request_for(task, device, root, workers), quantizer="ai-edge-quantizer")


class Counted:
    """Workers that count what they are asked for, and may be cut off."""

    def __init__(self, workers: Workers, most: int = 1000) -> None:
        self._workers = workers
        self._most = most
        self.count = 0

    def threads(self, job: Job) -> int:
        return self._workers.threads(job)

    def map(self, job: Job, items: Any, done: Any) -> None:
        if self.count == self._most:
            raise KeyboardInterrupt
        self.count += len(items)
        self._workers.map(job, items, done)

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("steps", [(PRUNE, DISTIL), (PRUNE, Equalize(), QAT)])
def test_training_ends_in_the_same_weights(
    steps: tuple[Any, ...], two: Processes, reference_device: DeviceProfile, tmp_path: Path
) -> None:
    task = load_task(BLOBS)
    hired = Counted(two)
    states = []
    for folder, workers in (("here", Here()), ("there", hired)):
        request = rounding(task, reference_device, tmp_path / folder, workers)
        module = compress(request, plan_of(*steps)).module
        states.append(module.state_dict())
    here, there = states
    untrained = compress(request, plan_of(*steps), recovered=False).module.state_dict()
    assert not all(torch.equal(here[name], untrained[name]) for name in here)
    assert hired.count == steps[-1].epochs
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_training_that_was_cut_off_goes_on_after_its_last_epoch(
    two: Processes, reference_device: DeviceProfile, tmp_path: Path
) -> None:
    task, plan = load_task(BLOBS), plan_of(PRUNE, DISTIL)
    whole = compress(rounding(task, reference_device, tmp_path / "a", Here()), plan)
    cut, rest = Counted(two, most=2), Counted(two)
    with pytest.raises(KeyboardInterrupt):
        compress(rounding(task, reference_device, tmp_path / "b", cut), plan)
    resumed = compress(rounding(task, reference_device, tmp_path / "b", rest), plan)
    assert (cut.count, rest.count) == (2, 1)
    wanted, found = whole.module.state_dict(), resumed.module.state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


FAILING = """
import torch
from edgesdk import Task

def evaluate(predict, split):
    raise ValueError("the labels are missing")

def task():
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        [p.fill_(0.5) for p in model.parameters()]
    return Task(name="failing", model=model, example_inputs=(torch.ones(1, 2),), evaluate=evaluate)
"""


def test_what_evaluate_raises_is_told_as_here(two: Processes, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(FAILING)
    task = load_task(f"{tmp_path / 'task.py'}:task")
    told = []
    for workers in (Here(), two):
        with pytest.raises(TaskError) as problem:
            measured(task, workers)
        told.append(str(problem.value))
    assert told[0] == told[1]
    assert "the labels are missing" in told[0]
    assert "line 6" in told[0]


def test_a_task_made_in_python_needs_this_process(
    reference_device: DeviceProfile, tmp_path: Path
) -> None:
    task = replace(load_task(BLOBS), reference="")
    with pytest.raises(UsageError, match="leave workers at 1"):
        edgesdk.compile(task, device=reference_device, out=tmp_path / "out", workers=2)


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_whole_compilation_is_the_same_and_clocks_while_workers_rest(
    reference_device: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifact, its plan and what was trained do not depend on who computed."""
    hired: list[Processes] = []
    clocked: list[list[int]] = []
    enter, measure = Processes.__enter__, timing.measure_alternating

    def entered(workers: Processes) -> Processes:
        hired.append(workers)
        return enter(workers)

    def measuring(*arguments: Any, **named: Any) -> Any:
        for workers in hired:
            assert workers.computing == 0
        before = [cpu_ticks(pid) for workers in hired for pid in workers.pids]
        result = measure(*arguments, **named)
        after = [cpu_ticks(pid) for workers in hired for pid in workers.pids]
        clocked.append([late - early for early, late in zip(before, after, strict=True)])
        return result

    monkeypatch.setattr(timing, "_ROUND_MS", 20.0)
    monkeypatch.setattr(timing, "_WARMUP_MS", 20.0)
    monkeypatch.setattr(Processes, "__enter__", entered)
    monkeypatch.setattr(proof, "measure_alternating", measuring)
    host = replace(reference_device, name="host")
    budget = Budget(size_bytes=Relative(fraction=0.3), max_drop=0.05)
    results = [
        edgesdk.compile(
            BLOBS, device=host, budget=budget, out=tmp_path / f"out{workers}", workers=workers,
            cache=tmp_path / f"cache{workers}",
        )
        for workers in (1, 2)
    ]  # fmt: skip
    alone, together = results
    assert together.plan.steps == alone.plan.steps
    assert Distil in [type(step) for step in alone.plan.steps]
    models = [sha256_of(tmp_path / f"out{n}" / "model.safetensors") for n in (1, 2)]
    assert models[0] == models[1]
    with_workers = [spent for spent in clocked if spent]
    assert len(with_workers) >= 2  # after the sensitivities, and after training
    assert all(max(spent) <= 1 for spent in with_workers)  # a hundredth of a second, for waking up


def cpu_ticks(pid: int) -> int:
    """Return the processor time that a process has used, in clock ticks (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
