"""Rounds over a fake process: what is timed, kept and taken up again."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
import torch

from edgesdk.artifact import TensorSpec
from edgesdk.calibrating import measuring
from edgesdk.calibrating.emitting import EmittedNetwork
from edgesdk.calibrating.measuring import Contender, Rounds, time_rounds
from edgesdk.errors import ArtifactError, MeasurementError
from edgesdk.graph import OpGraph
from edgesdk.progress import Silent
from edgesdk.running.wire import Array
from edgesdk.target import Emission

SPEC = TensorSpec(name="x", shape=(1, 2), dtype="float32", from_torch=(0, 1))
EMISSION = Emission(files=("m",), inputs=(SPEC,), outputs=(SPEC,), tool_versions={}, layer_of={})
LATENCIES_MS = {"a": 2.0, "b": 7.0}


class Clock:
    """A shared process whose artifacts take the milliseconds their folder's name stands for."""

    log: list[str]
    interrupts_after: int

    def __init__(self, *, target: str, host_runtime: str, threads: int) -> None:
        self.opened: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.log.append("closed")

    def open(self, folder: Path, emission: Emission) -> int:
        if folder.name == "broken":
            raise ArtifactError("no such opcode")
        self.opened.append(folder.name)
        return len(self.opened) - 1

    def time(self, number: int, inputs: Sequence[Array], runs: int) -> list[float]:
        assert inputs[0].dtype == np.float32
        Clock.interrupts_after -= 1
        if Clock.interrupts_after == 0:
            raise KeyboardInterrupt
        name = self.opened[number]
        self.log.append(name)
        return [LATENCIES_MS[name]] * runs


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock.log, Clock.interrupts_after = [], 10**9
    monkeypatch.setattr(measuring, "SharedProcess", Clock)


def contender(name: str) -> Contender:
    network = EmittedNetwork(
        name=name,
        target="t",
        scheme="fp32",
        graph=OpGraph(model=name, ops=(), tensors={}),
        folder=Path(name),
        emission=EMISSION,
    )
    return Contender(
        key=name,
        network=network,
        inputs=(torch.zeros(1, 2),),
        target="t",
        host_runtime="t",
        threads=1,
    )


def test_all_take_their_turn_in_every_round(tmp_path: Path) -> None:
    contenders = [contender("a"), contender("b")]
    found, refused = time_rounds(contenders, tmp_path / "s", Silent(), rounds=3)
    assert found.seconds() == {"a": 0.002, "b": 0.007}
    assert found.spread() == 1.0
    assert refused == {}
    assert Clock.log[-7:] == [*3 * ["a", "b"], "closed"]


def test_a_slow_machine_gets_fewer_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = itertools.count(0, 3600)
    monkeypatch.setattr(measuring.time, "monotonic", lambda: float(next(hours)))
    found, _ = time_rounds([contender("a")], tmp_path / "s", Silent(), rounds=8)
    assert len(found.quarters_ms) == 3


def test_what_a_runtime_refuses_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    contenders = [contender("broken"), contender("a")]
    found, refused = time_rounds(contenders, tmp_path / "s", Silent(), rounds=2)
    assert set(found.seconds()) == {"a"}
    assert refused == {"broken": "no such opcode"}


def test_an_interrupted_measurement_goes_on_with_the_next_round(tmp_path: Path) -> None:
    contenders = [contender("a"), contender("b")]
    time_rounds(contenders, tmp_path / "other", Silent(), rounds=0)
    warming = Clock.log.count("a") + Clock.log.count("b")
    Clock.interrupts_after = warming + 2 * 2 + 2  # within the third round
    with pytest.raises(KeyboardInterrupt):
        time_rounds(contenders, tmp_path / "s", Silent(), rounds=4)
    assert Clock.log[-1] == "closed"
    Clock.log.clear()
    found, _ = time_rounds(contenders, tmp_path / "s", Silent(), rounds=4)
    assert len(found.quarters_ms) == 4
    assert len([name for name in Clock.log if name != "closed"]) == warming + 2 * 2


@pytest.mark.parametrize("text", ["", "{", '{"quarters_ms": [{"z": 1.0}]}', '{"rounds": []}'])
def test_a_state_of_something_else_is_measured_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "s").write_text(text)
    found, _ = time_rounds([contender("a")], tmp_path / "s", Silent(), rounds=2)
    assert found.seconds() == {"a": 0.002}


def test_the_least_disturbed_round_counts_and_the_spread_says_how_quiet_it_was() -> None:
    rounds = Rounds(quarters_ms=({"a": 3.0, "b": 1.0}, {"a": 2.0, "b": 1.5}, {"a": 2.5, "b": 1.1}))
    assert rounds.seconds() == {"a": 0.002, "b": 0.001}
    assert rounds.spread() == pytest.approx((1.25 + 1.1) / 2)


def test_no_round() -> None:
    with pytest.raises(MeasurementError, match="no round"):
        Rounds().spread()
