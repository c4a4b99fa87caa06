"""Measuring on this machine, and what a runner may be called."""

from __future__ import annotations

from pathlib import Path

import pytest
from profiled import job_of, make_artifact, make_python

from edgesdk.errors import MeasurementError, UsageError
from edgesdk.profiling import local
from edgesdk.profiling.runners import find_runner


def test_this_machine_is_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = make_python(tmp_path / "p")
    monkeypatch.setattr(local.sys, "executable", str(python))
    artifact = make_artifact(tmp_path / "out", device="samsung_galaxy_s24")
    found = local.measure("", job_of(artifact, hooks=False, sustained_s=2.0))
    assert found.device == "host"
    assert len(found.sustained) >= 1
    assert found.sustained[0].start_s < 1


def test_a_crash_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = make_python(tmp_path / "p", load="os.abort()")
    monkeypatch.setattr(local.sys, "executable", str(python))
    with pytest.raises(MeasurementError, match="this machine: the runtime crashed with signal 6"):
        local.measure("", job_of(make_artifact(tmp_path / "out")))


def test_local_is_no_other_device(tmp_path: Path) -> None:
    job = job_of(make_artifact(tmp_path / "out"), device="raspberry_pi_5")
    with pytest.raises(UsageError, match="which is not raspberry_pi_5"):
        local.measure("", job)
    with pytest.raises(UsageError, match="takes no place"):
        local.measure("here", job)


@pytest.mark.parametrize(
    ("name", "said"), [("locla", "did you mean 'local'"), ("", "unknown runner"), ("sh:x", "ssh")]
)
def test_an_unknown_runner(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_runner(name)


def test_the_place_is_what_follows_the_first_colon() -> None:
    assert find_runner("ssh:pi@board:22")[1] == "pi@board:22"
    assert find_runner("local")[1] == ""
