"""A Ray cluster of two workers on this machine: the same answers, and clear errors without one."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jobs import Squares
from planned import plan_of
from requesting import request_for

from edgesdk.device import DeviceProfile
from edgesdk.document import to_json
from edgesdk.errors import TargetUnavailable, TaskError, WorkerError
from edgesdk.plan import Distil, Prune, PrunedGroup
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.stages.compression import compress
from edgesdk.stages.learning import learn_graph, learn_sensitivity
from edgesdk.task_source import load_task
from edgesdk.workers.choice import find_workers
from edgesdk.workers.here import Here
from edgesdk.workers.job import Workers
from edgesdk.workers.parcel import Parcel
from edgesdk.workers.ray_cluster import RayCluster

TESTS = Path(__file__).parents[1]
BLOBS = f"{TESTS / 'blobs_task.py'}:blobs"
GROUP = PrunedGroup(layer="0", width_before=96, removed=tuple(range(64)))
PRUNE = Prune(ratio=0.3, channel_multiple=4, importance="taylor", groups=(GROUP,))
DISTIL = Distil(epochs=2, learning_rate=0.01, temperature=4.0, alpha=0.5, patience=2)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The machine for one cluster: Ray's servers of two would take the same ports."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def address(machine: None) -> Iterator[str]:
    """The address of a cluster that lives as long as this module's tests."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="ray."))  # a short path: Ray makes sockets in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{TESTS}")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Without it the server of a client dies now and then: ray-project/ray/issues/63202.
        patch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
        with (folder / "said").open("w") as said:
            head = subprocess.Popen(
                [
                    sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
                    "--num-cpus=2", "--node-ip-address=127.0.0.1", f"--port={free_port()}",
                    f"--ray-client-server-port={port}", "--include-dashboard=false",
                    "--disable-usage-stats", "--object-store-memory=100000000",
                    f"--temp-dir={folder / 'ray'}",
                ],
                stdout=said, stderr=said,
            )  # fmt: skip
        try:
            until = time.monotonic() + 120
            while not answers_at(port):
                assert head.poll() is None, (folder / "said").read_text()
                assert time.monotonic() < until, (folder / "said").read_text()
                time.sleep(0.1)
            yield f"ray://127.0.0.1:{port}"
        finally:
            head.terminate()  # it ends what it started
            head.wait()
            shutil.rmtree(folder, ignore_errors=True)


def answers_at(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def cluster(address: str) -> Iterator[Workers]:
    with find_workers(address) as workers:
        assert isinstance(workers, RayCluster)
        yield workers


@pytest.mark.slow
def test_sensitivities_and_weights_are_those_of_this_process(
    cluster: Workers, reference_device: DeviceProfile, tmp_path: Path
) -> None:
    plan = plan_of(PRUNE, DISTIL)
    found: list[tuple[Sensitivity, dict[str, torch.Tensor]]] = []
    for name, workers in (("here", Here()), ("there", cluster)):
        request = request_for(load_task(BLOBS), reference_device, tmp_path / name, workers)
        sensitivity = learn_sensitivity(request, learn_graph(request))
        found.append((sensitivity, compress(request, plan).module.state_dict()))
    (here, trained_here), (there, trained_there) = found
    assert to_json(there) == to_json(here)
    untrained = compress(request, plan, recovered=False).module.state_dict()
    assert not all(torch.equal(trained_here[name], untrained[name]) for name in untrained)
    assert all(torch.equal(trained_here[name], trained_there[name]) for name in trained_here)


@pytest.mark.slow
def test_answers_come_in_their_places_from_more_than_one_process(cluster: Workers) -> None:
    items = [
        Parcel(values={"seconds": 0.5}, tensors={"numbers": torch.tensor([n])}) for n in range(4)
    ]
    answers: dict[int, Parcel] = {}
    cluster.map(Squares(0.5), items, answers.__setitem__)
    found = [float(answers[n].tensors["squares"]) for n in range(4)]
    assert found == [0.5, 1.5, 4.5, 9.5]
    assert len({answer.values["pid"] for answer in answers.values()}) == 2
    assert {answer.values["threads"] for answer in answers.values()} == {1}


@pytest.mark.slow
def test_what_an_item_raises_is_raised_here(cluster: Workers) -> None:
    items = [
        Parcel(values={"raises": "the first", "seconds": 0.3}),
        Parcel(values={"raises": "the second"}),
    ]
    with pytest.raises(TaskError) as here:
        Here().map(Squares(), items, lambda *_: None)
    with pytest.raises(TaskError) as there:
        cluster.map(Squares(), items, lambda *_: None)
    assert str(there.value) == str(here.value)
    with pytest.raises(RuntimeError, match="a slip of ours"):
        cluster.map(Squares(), [Parcel(values={"bug": True})], lambda *_: None)


@pytest.mark.slow
def test_a_worker_that_dies_each_time_is_told_of(cluster: Workers) -> None:
    with pytest.raises(WorkerError, match="was lost") as problem:
        cluster.map(Squares(), [Parcel(values={"dies": True})], lambda *_: None)
    assert "run the same command again" in str(problem.value)


def test_a_cluster_that_is_not_there_is_told_of_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(WorkerError, match="no Ray cluster answers at 127.0.0.1:") as problem:
        RayCluster(f"ray://127.0.0.1:{free_port()}").__enter__()
    assert "ray start --head" in str(problem.value)
    assert time.monotonic() - started < 30


def test_without_ray_the_error_names_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TargetUnavailable, match=r"pip install 'edgesdk\[ray\]'"):
        RayCluster("ray:auto").__enter__()


def test_ray_is_imported_only_for_a_cluster() -> None:
    program = (
        "import sys, edgesdk.cli, edgesdk.pipeline\n"
        "from edgesdk.workers.choice import find_workers\n"
        "find_workers('4'), find_workers('ray://somewhere:10001')\n"
        "assert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_server_that_fails_to_start_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def refuse(*_: object, **__: object) -> None:
        tries.append(len(tries))
        if len(tries) < 3 or refuses_always:
            raise ConnectionAbortedError(
                "Initialization failure from server:\nTraceback (most recent call last):\n"
                "RuntimeError: Starting Ray client server failed."
            )

    ray = SimpleNamespace(init=refuse, remote=lambda job: job, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    refuses_always = False
    with RayCluster("ray:auto"):
        assert tries == [0, 1, 2]
    refuses_always = True
    with pytest.raises(WorkerError, match="RuntimeError: Starting Ray client server") as found:
        RayCluster("ray:auto").__enter__()
    assert tries == list(range(6))
    assert "GRPC_ENABLE_FORK_SUPPORT=0" in str(found.value)
