"""Calibrating this machine: for real but reduced, and what is said where that cannot be."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgesdk.cache import Cache
from edgesdk.calibrating import host
from edgesdk.calibrating.emitting import Job, Refused
from edgesdk.calibrating.host import all_threads, calibrate_host, packaged_host
from edgesdk.calibrating.measuring import Rounds
from edgesdk.calibrating.microbenchmarks import microbenchmarks
from edgesdk.device_document import read_profile
from edgesdk.device_text import profile_text
from edgesdk.errors import TargetUnavailable, UsageError
from edgesdk.progress import Silent

FEW = tuple(
    item
    for item in microbenchmarks()
    if item.name.startswith(("nothing", "row of", "linear layers, 256", "linear layers, 16x64"))
    or item.name in ("additions", "3x3 convolutions, 8 channels, 16x16", "encoder layers")
)


@pytest.mark.slow
@pytest.mark.toolchain
def test_this_machine_is_calibrated_and_its_profile_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two precisions of one target are enough to see all of it, in half the time.
    base = packaged_host()
    monkeypatch.setattr(
        host, "packaged_host", lambda: replace(base, runtime=(base.runtime_for("tflite"),))
    )
    cache = Cache(tmp_path / "cache")
    result = calibrate_host(FEW, threads=[1], cache=cache, progress=Silent(), rounds=2)
    assert result.profile.calibrated_from == "host"
    assert result.skipped == {}
    assert result.spread >= 1
    [runtime] = result.profile.runtime
    [packaged] = [r for r in packaged_host().runtime if r.target == runtime.target]
    for scheme, cost in runtime.precisions.items():
        if scheme not in ("fp32", "int8"):
            assert cost == packaged.precisions[scheme]
            continue
        assert cost.mac_per_s.kind == "fitted"
        assert 1e8 < cost.mac_per_s.value < 1e14
        assert cost.inference_overhead_s.value < 1e-3
    path = tmp_path / "host.toml"
    path.write_text(profile_text(result.profile), encoding="utf-8")
    assert read_profile(path) == result.profile
    assert not list((tmp_path / "cache/scratch/calibrate").glob("*")), "nothing stays half done"


def test_one_thread_and_all_unless_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert all_threads() == (1, 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert all_threads() == (1,)


@pytest.mark.parametrize("threads", [[0], [10**6], [1, 1], []])
def test_thread_counts_that_cannot_be(tmp_path: Path, threads: list[int]) -> None:
    with pytest.raises(UsageError, match="thread"):
        calibrate_host(FEW, threads=threads, cache=Cache(tmp_path), progress=Silent())


def test_what_there_is_no_time_to_convert_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def emit_needed(
        jobs: Sequence[Job], cache: Cache, *, needed: int, until_s: float
    ) -> Iterator[Any]:
        assert until_s - time.monotonic() == pytest.approx(0.55 * 120, abs=5)
        asked.extend(job.benchmark for job in jobs[:needed])
        for job in jobs[:needed]:
            refused = Refused(name=job.benchmark, target="tflite", scheme="int8", reason="none")
            yield job, (refused,)

    def time_none(*_: object, limit_s: float, **__: object) -> tuple[Rounds, dict[str, str]]:
        assert limit_s == pytest.approx(0.13 * 120)
        return Rounds(quarters_ms=({"a": 1.0},)), {}

    monkeypatch.setattr(host, "emit_all", emit_needed)
    monkeypatch.setattr(host, "time_rounds", time_none)
    monkeypatch.setattr(host, "_fitted", lambda runtime, *_, **__: runtime)
    benchmarks, cache = microbenchmarks(), Cache(tmp_path)
    result = calibrate_host(benchmarks, threads=[1], cache=cache, progress=Silent(), limit_s=120)
    assert result.networks + len(result.left_out) == len(benchmarks)
    assert {*asked, *result.left_out} == {item.name for item in benchmarks}
    families = {item.name: item.family for item in benchmarks}
    wholes = [families[name] for name in asked if families[name] is not None]
    assert sorted(set(wholes)) == sorted(wholes), "one of each family is needed"
    assert {families[name] for name in result.left_out} < set(wholes), "rows never are left out"


def test_without_any_toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"executorch": "pip install a", "tflite": "pip install b"}
    monkeypatch.setattr(host, "_missing_toolchains", lambda base: missing)
    with pytest.raises(TargetUnavailable, match="pip install a; pip install b"):
        calibrate_host(FEW, threads=[1], cache=Cache(tmp_path), progress=Silent())
