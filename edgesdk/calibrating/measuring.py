"""Time many artifacts in turn, round after round, and keep what was measured so far."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ConfigDict

from edgesdk.calibrating.emitting import EmittedNetwork
from edgesdk.document import read_json, to_json
from edgesdk.errors import ArtifactError, MeasurementError
from edgesdk.measurement import percentile
from edgesdk.progress import Progress
from edgesdk.running.adapter import encode_inputs
from edgesdk.running.process import SharedProcess
from edgesdk.target import Arrays
from edgesdk.task import Tensors

ROUNDS = 8
_LEAST_ROUNDS = 3
_ROUND_MS = 15.0
_LEAST_RUNS = 8
_QUARTER = 0.25
_WARMUP_MS = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """An artifact to time: its network's file and inputs, its runtime here, and the threads."""

    key: str
    network: EmittedNetwork
    inputs: Tensors
    target: str
    host_runtime: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The milliseconds that a quarter of each contender's runs stay within, round by round.

    A median needs half of the runs undisturbed, which a busy machine does not give an inference of
    several milliseconds; on a quiet one the two differ by 2 or 3 %.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    quarters_ms: tuple[Mapping[str, float], ...] = ()
    schema_version: int = 1

    def seconds(self) -> Mapping[str, float]:
        """Return each contender's lowest round, in seconds.

        What disturbs a measurement (other processes, a slower clock) only ever adds time, so the
        least disturbed round is the best estimate of what the machine takes.
        """
        keys = self.quarters_ms[0] if self.quarters_ms else {}
        return {key: min(r[key] for r in self.quarters_ms) / 1e3 for key in keys}

    def spread(self) -> float:
        """Return the median, over contenders, of their median round over their lowest."""
        if not self.quarters_ms:
            raise MeasurementError("no round was timed")
        columns = [[r[key] for r in self.quarters_ms] for key in self.quarters_ms[0]]
        return statistics.median(statistics.median(column) / min(column) for column in columns)


@dataclass(kw_only=True)
class _Opened:
    """A contender that is loaded in a process."""

    contender: Contender
    process: SharedProcess
    number: int
    arrays: Arrays
    runs: int = field(default=1)


def time_rounds(
    contenders: Sequence[Contender],
    state: Path,
    progress: Progress,
    *,
    rounds: int = ROUNDS,
    limit_s: float = 60.0,
) -> tuple[Rounds, Mapping[str, str]]:
    """Return the rounds, and for each contender that its runtime refused, why.

    All contenders are loaded at once and timed in turn in every round, so noise hits all alike.
    On a slow or busy machine there are fewer rounds, at least three: after ``limit_s`` none begins.
    ``state`` is a file that holds the finished rounds: after an interruption only the others are
    timed. It is ignored where it is about other contenders.
    """
    with ExitStack() as stack:
        opened, refused = _open_all(contenders, stack, progress)
        keys = {item.contender.key for item in opened}
        done = [known for known in _read(state).quarters_ms if set(known) == keys]
        progress.step("Timing the microbenchmarks")
        total = rounds * len(opened)
        deadline = time.monotonic() + limit_s
        for index in range(len(done), rounds):
            if index >= _LEAST_ROUNDS and time.monotonic() > deadline:
                break
            found = {}
            for position, item in enumerate(opened):
                progress.advance(index * len(opened) + position, total, f"round {index + 1}")
                samples = item.process.time(item.number, item.arrays, item.runs)
                found[item.contender.key] = percentile(samples, _QUARTER)
            done.append(found)
            state.write_text(to_json(Rounds(quarters_ms=tuple(done))), encoding="utf-8")
    return Rounds(quarters_ms=tuple(done[:rounds])), refused


def _open_all(
    contenders: Sequence[Contender], stack: ExitStack, progress: Progress
) -> tuple[list[_Opened], dict[str, str]]:
    progress.step("Loading the microbenchmarks")
    processes: dict[tuple[str, str, int], SharedProcess] = {}
    opened, refused = [], {}
    for index, contender in enumerate(contenders):
        progress.advance(index, len(contenders), contender.network.name)
        home = (contender.target, contender.host_runtime, contender.threads)
        if home not in processes:
            processes[home] = stack.enter_context(
                SharedProcess(target=home[0], host_runtime=home[1], threads=home[2])
            )
        try:
            opened.append(_open(contender, processes[home]))
        except ArtifactError as problem:
            refused[contender.key] = problem.found
    return opened, refused


def _open(contender: Contender, process: SharedProcess) -> _Opened:
    """Return the contender loaded and warm, and how many runs fill its part of a round."""
    emission = contender.network.emission
    number = process.open(contender.network.folder, emission)
    stacked, _ = encode_inputs(contender.inputs, emission.inputs)
    item = _Opened(
        contender=contender, process=process, number=number, arrays=[a[0] for a in stacked]
    )
    elapsed_ms, runs = 0.0, 1
    while elapsed_ms < _WARMUP_MS:
        samples = process.time(number, item.arrays, runs)
        elapsed_ms += sum(samples)
        runs *= 2
    item.runs = max(_LEAST_RUNS, round(_ROUND_MS / max(statistics.median(samples), 1e-3)))
    return item


def _read(state: Path) -> Rounds:
    """Return the finished rounds; none where the file is missing or an interruption cut it off."""
    try:
        return read_json(Rounds, state)
    except ArtifactError:
        return Rounds()
