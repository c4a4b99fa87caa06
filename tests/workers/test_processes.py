"""Worker processes: the same answers, the same errors, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jobs import AloneSquares, Squares

from edgesdk.errors import TaskError, UsageError, WorkerError
from edgesdk.workers.choice import find_workers
from edgesdk.workers.here import Here
from edgesdk.workers.job import Job, Workers
from edgesdk.workers.parcel import Parcel
from edgesdk.workers.processes import Processes


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with Processes(2) as workers:
        yield workers


def answers(workers: Workers, job: Job, items: list[Parcel]) -> list[Parcel]:
    found: dict[int, Parcel] = {}
    workers.map(job, items, found.__setitem__)
    return [found[number] for number in range(len(items))]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(file: Path) -> None:
    until = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < until, f"{file} was never written"
        time.sleep(0.02)


@pytest.mark.slow
def test_answers_are_those_of_this_process_in_their_places(two: Processes) -> None:
    items = [Parcel(tensors={"numbers": torch.randn(5)}, values={}) for _ in range(7)]
    job = Squares(offset=1 / 3)
    here = [a.tensors["squares"] for a in answers(Here(), job, items)]
    there = answers(two, job, items)
    assert all(torch.equal(a, b.tensors["squares"]) for a, b in zip(here, there, strict=True))
    pids = {answer.values["pid"] for answer in there}
    assert pids <= set(two.pids)
    assert os.getpid() not in pids
    # The same processes do the next job.
    again = answers(two, Squares(), items)
    assert {answer.values["pid"] for answer in again} <= set(two.pids)
    assert two.computing == 0


@pytest.mark.slow
def test_workers_share_the_threads_and_work_done_alone_has_them_all() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        with Processes(2) as workers:
            (shared,) = answers(workers, Squares(), [Parcel(values={})])
            (alone,) = answers(workers, AloneSquares(), [Parcel(values={})])
            assert shared.values["threads"] == workers.threads(Squares()) == 2
            assert alone.values["threads"] == workers.threads(AloneSquares()) == 5
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_what_an_item_raises_is_raised_here_the_first_in_their_order(two: Processes) -> None:
    items = [
        Parcel(values={}),
        Parcel(values={"raises": "the first", "seconds": 0.5}),
        Parcel(values={"raises": "the second"}),
        *(Parcel(values={}) for _ in range(20)),
    ]
    with pytest.raises(TaskError) as here:
        answers(Here(), Squares(), items)
    told: dict[int, Parcel] = {}
    with pytest.raises(TaskError) as there:
        two.map(Squares(), items, told.__setitem__)
    assert str(there.value) == str(here.value)
    assert (there.value.found, there.value.next_step) == ("the first", "give one")
    assert 0 in told  # what was done by then was told of
    assert two.computing == 0
    assert len(answers(two, Squares(), items[:1])) == 1  # the workers live on


@pytest.mark.slow
def test_a_slip_of_ours_is_a_bug_there_too(two: Processes) -> None:
    with pytest.raises(RuntimeError, match="a slip of ours") as problem:
        answers(two, Squares(), [Parcel(values={"bug": True})])
    assert "in run" in "".join(problem.value.__notes__)


@pytest.mark.slow
def test_a_worker_that_dies_is_named_and_takes_the_others_along() -> None:
    items = [Parcel(values={"seconds": 600.0}), Parcel(values={"dies": True})]
    started = time.monotonic()
    said = r"worker [12] \(process \d+\) crashed with SIGKILL"
    with Processes(2) as workers, pytest.raises(WorkerError, match=said) as e:
        answers(workers, Squares(), items)
    assert time.monotonic() - started < 300  # it did not wait for the other
    assert e.value.next_step is not None
    assert "run the same command again" in e.value.next_step


@pytest.mark.slow
def test_no_process_outlives_the_block() -> None:
    with Processes(2) as workers:
        answers(workers, Squares(), [Parcel(values={}), Parcel(values={})])
        pids = workers.pids
        assert all(is_alive(pid) for pid in pids)
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.slow
def test_an_interruption_ends_workers_in_mid_work(tmp_path: Path) -> None:
    began = [tmp_path / "a", tmp_path / "b"]
    items = [Parcel(values={"began": str(file), "seconds": 600.0}) for file in began]

    def interrupt() -> None:
        for file in began:
            wait_for(file)
        os.kill(os.getpid(), signal.SIGINT)

    def on_signal(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        with Processes(2) as workers:
            watcher = threading.Thread(target=interrupt)
            watcher.start()
            with pytest.raises(KeyboardInterrupt):
                answers(workers, Squares(), items)
            pids = workers.pids
            watcher.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.slow
def test_workers_leave_when_whoever_started_them_is_killed(tmp_path: Path) -> None:
    began = tmp_path / "began"
    program = (
        "from jobs import Squares\n"
        "from edgesdk.workers.parcel import Parcel\n"
        "from edgesdk.workers.processes import Processes\n"
        "with Processes(2) as workers:\n"
        f"    item = Parcel(values={{'began': {str(began)!r}, 'seconds': 600.0}})\n"
        "    workers.map(Squares(), [item], print)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", program])
    wait_for(began)
    while not (pid := began.read_text()):
        time.sleep(0.02)
    starter.kill()
    starter.wait()
    until = time.monotonic() + 30
    while is_alive(int(pid)):
        assert time.monotonic() < until, "the worker is still there"
        time.sleep(0.1)


@pytest.mark.parametrize(
    "text", ["0", "-1", "two", "1.5", "", "ray", "ray://", "ray://host", "ray:x"]
)
def test_what_names_no_workers_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="ray://HOST:PORT"):
        find_workers(text)


def test_one_worker_is_this_process() -> None:
    assert isinstance(find_workers("1"), Here)
    assert isinstance(find_workers(1), Here)
    found = find_workers(" 3 ")
    assert isinstance(found, Processes)
    assert found.count == 3
