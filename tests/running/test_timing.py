import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from edgesdk.artifact import TensorSpec
from edgesdk.errors import TaskError
from edgesdk.measurement import Measurement, RuntimeIdentity
from edgesdk.running import timing
from edgesdk.running.process import ArtifactProcess
from edgesdk.running.timing import measure_alternating
from edgesdk.target import Arrays

SPEC = TensorSpec(name="x", shape=(2, 3), dtype="float32", from_torch=(0, 1))
EXAMPLE = (torch.zeros(2, 3),)


class Clockwork:
    """A process whose inferences take the milliseconds it is told, in order."""

    def __init__(self, name: str, latencies: Iterator[float], folder: Path, log: list[str]) -> None:
        self.name, self.latencies, self.log = name, latencies, log
        self.folder = folder
        self.emission = SimpleNamespace(files=(f"{name}.bin",), inputs=(SPEC,))
        self.identity = RuntimeIdentity(
            runtime=name, version="1", platform="test", unit="cpu", threads=1
        )
        self.load_ms = 12.5
        self.requests: list[int] = []
        (folder / f"{name}.bin").write_text(name)

    def time(self, inputs: Arrays, runs: int) -> list[float]:
        assert [array.shape for array in inputs] == [(2, 3)]
        self.log.append(self.name)
        self.requests.append(runs)
        return list(itertools.islice(self.latencies, runs))


def measured(*processes: Clockwork) -> list[Measurement]:
    cast_processes = [cast(ArtifactProcess, process) for process in processes]
    return measure_alternating(cast_processes, EXAMPLE, device="host")


@pytest.fixture
def steady(tmp_path: Path) -> Callable[[str, float], Clockwork]:
    log: list[str] = []
    return lambda name, ms: Clockwork(name, itertools.repeat(ms), tmp_path, log)


def test_a_steady_artifact_is_measured_as_it_is(
    steady: Callable[[str, float], Clockwork], tmp_path: Path
) -> None:
    [found] = measured(steady("a", 6.0))
    assert (found.minimum_ms, found.p50_ms, found.p90_ms, found.p99_ms) == (6.0, 6.0, 6.0, 6.0)
    assert (found.first_ms, found.load_ms) == (6.0, 12.5)
    assert (found.device, found.identity.runtime, found.batch_size) == ("host", "a", 2)
    assert found.artifact_sha256 == hashlib.sha256(b"a").hexdigest()


def test_every_inference_is_counted(steady: Callable[[str, float], Clockwork]) -> None:
    process = steady("a", 6.0)
    [found] = measured(process)
    assert found.warmup_runs + found.runs == sum(process.requests)
    assert found.runs == 8 * 10  # the least number of rounds, each about 60 ms long


def test_the_slow_first_inferences_do_not_count(tmp_path: Path) -> None:
    cold = itertools.chain([500.0], [50.0] * 3, itertools.repeat(5.0))
    [found] = measured(Clockwork("a", cold, tmp_path, []))
    assert found.first_ms == 500.0
    # 500 ms of warming up were enough by the clock, and three slow runs still follow.
    assert found.p50_ms == 5.0


def test_a_fast_artifact_is_warmed_up_by_time_not_by_count(
    steady: Callable[[str, float], Clockwork],
) -> None:
    [found] = measured(steady("a", 0.01))
    assert found.warmup_runs * 0.01 >= 200


def test_artifacts_take_turns_within_every_round(
    steady: Callable[[str, float], Clockwork],
) -> None:
    first, second = steady("a", 30.0), steady("b", 60.0)
    found = measured(first, second)
    rounds = first.log[-16:]
    assert rounds == ["a", "b"] * 8
    assert [item.p50_ms for item in found] == [30.0, 60.0]
    # A round takes each the same time, whatever it costs.
    assert (first.requests[-1], second.requests[-1]) == (2, 1)


def test_a_drift_is_shared_so_that_ratios_hold(tmp_path: Path) -> None:
    """Both slow down together with time; one after the other the ratio would be off."""
    speed = itertools.count()

    def drifting(factor: float) -> Iterator[float]:
        while True:
            yield factor * (20 + 0.05 * next(speed))

    log: list[str] = []
    one = Clockwork("a", drifting(1.0), tmp_path, log)
    other = Clockwork("b", drifting(2.0), tmp_path, log)
    first, second = measured(one, other)
    assert second.p50_ms / first.p50_ms == pytest.approx(2.0, rel=0.05)


def test_what_does_not_settle_is_measured_longer_and_ends(tmp_path: Path) -> None:
    rising = (10.0 * 1.01**index for index in itertools.count())
    process = Clockwork("a", rising, tmp_path, [])
    [found] = measured(process)
    rounds = 60
    assert len(process.log) > rounds
    assert found.runs == sum(process.requests[-rounds:])


def test_time_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 15.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    [found] = measured(Clockwork("a", itertools.repeat(3000.0), tmp_path, []))
    assert 3 <= found.runs < 8


def test_a_clock_that_stands_still_is_not_waited_for_forever(tmp_path: Path) -> None:
    still = itertools.chain([0.0] * 100, itertools.repeat(1.0))
    [found] = measured(Clockwork("a", still, tmp_path, []))
    assert found.p50_ms == 1.0


def test_examples_of_another_shape_are_the_tasks_error(tmp_path: Path) -> None:
    process = cast(ArtifactProcess, Clockwork("a", itertools.repeat(1.0), tmp_path, []))
    with pytest.raises(TaskError):
        measure_alternating([process], (torch.zeros(2, 4),), device="host")
