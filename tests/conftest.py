"""Fixtures for every test: a cache of its own, known seeds, and a target without toolchain."""

from __future__ import annotations

import fcntl
import os
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from reference import REFERENCE_DEVICE, REFERENCE_TARGET, Register

from edgesdk.device import DeviceProfile
from edgesdk.device_files import load_device
from edgesdk.errors import TargetUnavailable
from edgesdk.running import worker
from edgesdk.running.process import ArtifactProcess
from edgesdk.running.wire import Array
from edgesdk.sources.tensorflow import ENVIRONMENT, VARIABLE
from edgesdk.target import Arrays, find_target, target_names

settings.register_profile("edgesdk", deadline=None, derandomize=True, database=None)
settings.load_profile("edgesdk")


@pytest.fixture(scope="session", autouse=True)
def session_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep everything out of the user's folders, for fixtures that outlive a test too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESDK_CACHE", str(tmp_path_factory.mktemp("session-cache")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("EDGESDK_STORE", str(tmp_path_factory.mktemp("session-data")))
        torch.set_num_threads(1)
        yield


@pytest.fixture(autouse=True)
def cache_root(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache folder, which ``$EDGESDK_CACHE`` names during the test."""
    root = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EDGESDK_CACHE", str(root))
    return root


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every run and in any order of tests."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session")
def tensorflow_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with TensorFlow, installed once for all workers of this run."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tensorflow"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return ENVIRONMENT.prepare(shared)
        except TargetUnavailable as lack:
            if os.environ.get("EDGESDK_REQUIRE_PROGRAMS"):
                raise
            pytest.skip(f"TensorFlow cannot be installed here: {lack.found}")


@pytest.fixture
def tensorflow(tensorflow_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras models can be loaded."""
    monkeypatch.setenv(VARIABLE, str(tensorflow_python))


@pytest.fixture
def register_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Register a target by name, entry point and the folder of its module, as a stranger's would.

    It is found here and in worker processes through a distribution's metadata.
    """

    def register(name: str, entry_point: str, folder: Path) -> None:
        site = tmp_path / "site"
        info = site / f"{name}_target-1.0.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {name}-target\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(f"[edgesdk.targets]\n{name} = {entry_point}\n")
        found = [str(site), str(folder)]
        monkeypatch.setattr(sys, "path", [*found, *sys.path])
        before = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*found, *([before] if before else [])]))
        find_target.cache_clear()
        target_names.cache_clear()

    yield register
    find_target.cache_clear()
    target_names.cache_clear()


@pytest.fixture
def reference_device(register_target: Register) -> DeviceProfile:
    """The device of the guide's reference target, which is registered: no toolchain is needed."""
    register_target("numpy", "edgesdk_numpy:TARGET", REFERENCE_TARGET)
    return load_device(str(REFERENCE_DEVICE))


class InProcess(ArtifactProcess):
    """An artifact that runs in this very process: starting another takes seconds."""

    def __enter__(self) -> InProcess:
        target = find_target(self.target)
        self._session = target.open(self.folder, self.emission, self.host_runtime, self._threads)
        self.identity = self._session.identity
        self.memory_bytes = self._session.memory_bytes()
        self.load_ms = 1.0
        return self

    def __exit__(self, *_: object) -> None:
        del self._session

    def run(self, stacked: Sequence[Array]) -> Arrays:
        return worker._run(self._session, list(stacked))

    def time(self, inputs: Sequence[Array], runs: int) -> list[float]:
        return list(worker._time(self._session, {"runs": runs}, list(inputs))["samples_ms"])


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let artifacts run in this process; the worker process has tests of its own."""
    monkeypatch.setattr("edgesdk.stages.proof.ArtifactProcess", InProcess)
    monkeypatch.setattr("edgesdk.verification.ArtifactProcess", InProcess)
