"""Calibrating this machine: for real but reduced, and what is said where that cannot be."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.cache import Cache
from edgesdk.calibrating import host
from edgesdk.calibrating.host import all_threads, calibrate_host, packaged_host
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


def test_without_any_toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"executorch": "pip install a", "tflite": "pip install b"}
    monkeypatch.setattr(host, "_missing_toolchains", lambda base: missing)
    with pytest.raises(TargetUnavailable, match="pip install a; pip install b"):
        calibrate_host(FEW, threads=[1], cache=Cache(tmp_path), progress=Silent())
