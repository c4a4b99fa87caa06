"""Measuring over ssh: a real OpenSSH server on loopback, with keys and a port of its own."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from profiled import MODEL, job_of, make_artifact, make_python, reseal
from programs import needs
from ssh_board import STARTED_S, Board, serve_board

from edgesdk.artifact import sha256_of
from edgesdk.errors import MeasurementError, UsageError
from edgesdk.profiling import ssh
from edgesdk.profiling.ssh import Address, measure, pack, parse_address


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with serve_board(tmp_path / "board") as served:
        yield served


@needs("sshd")
def test_a_board_is_measured_and_nothing_stays_on_it(board: Board, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out", device="raspberry_pi_5")
    python = make_python(tmp_path / "a p'y$thon")  # a word that a shell would take apart
    job = job_of(artifact, ssh_config=board.config, python=str(python), hooks=False)
    found = measure(board.place, job)
    assert found.artifact_sha256 == sha256_of(artifact / MODEL)
    assert (found.device, found.p50_ms >= 1.0) == ("raspberry_pi_5", True)
    assert found.self_test is not None
    assert found.self_test.status == "passed"
    assert "profile --on ssh" in found.measured_by
    assert board.left_behind() == []


@needs("sshd")
def test_a_refusal_of_the_agent_comes_back(board: Board, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out")
    python = make_python(tmp_path / "p", version="1.0")
    job = job_of(artifact, ssh_config=board.config, python=str(python))
    with pytest.raises(MeasurementError, match="is 1.0 here, the artifact needs 2.3.0"):
        measure(board.place, job)
    with pytest.raises(MeasurementError, match="has no such Python"):
        measure(board.place, job_of(artifact, ssh_config=board.config, python="/no/python"))
    assert board.left_behind() == []


@needs("sshd")
def test_a_crash_of_the_runtime_is_told(board: Board, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out")
    python = make_python(tmp_path / "p", load="os.abort()")
    job = job_of(artifact, ssh_config=board.config, python=str(python))
    with pytest.raises(MeasurementError, match="crashed with signal 6"):
        measure(board.place, job)
    assert board.left_behind() == []


@needs("sshd")
def test_a_cut_connection_is_an_error_and_leaves_nothing(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's process of the connection is killed in the middle, as a lost cable would."""
    artifact = make_artifact(tmp_path / "out")
    mark = tmp_path / "running"
    python = make_python(tmp_path / "p", invoke=f"open({str(mark)!r}, 'w').close(); time.sleep(1)")
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def remember(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = real(*arguments, **options)  # type: ignore[call-overload]
        started.append(process)
        return process

    monkeypatch.setattr(ssh.subprocess, "Popen", remember)

    def cut() -> None:
        deadline = time.monotonic() + STARTED_S * 4
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        started[0].kill()

    threading.Thread(target=cut).start()
    job = job_of(artifact, ssh_config=board.config, python=str(python))
    with pytest.raises(MeasurementError):
        measure(board.place, job)
    assert mark.exists()
    assert board.left_behind() == []
    # Nothing was left that a second attempt would stumble over.
    works = make_python(tmp_path / "q")
    again = job_of(artifact, ssh_config=board.config, python=str(works), hooks=False)
    assert measure(board.place, again).p50_ms > 0


@needs("sshd")
def test_a_full_board_is_told(board: Board, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out")
    board.scratch.rmdir()
    job = job_of(artifact, ssh_config=board.config)
    with pytest.raises(MeasurementError, match="cannot hold the artifact") as caught:
        measure(board.place, job)
    assert "free some space" in str(caught.value)


@needs("sshd")
def test_a_board_that_is_not_there(board: Board, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out")
    board.server.kill()
    board.server.wait()
    with pytest.raises(MeasurementError, match="failed or was cut") as caught:
        measure(board.place, job_of(artifact, ssh_config=board.config))
    assert "run the same command again" in str(caught.value)


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ("pi@board", Address(user="pi", host="board", port=None)),
        ("board.local:2222", Address(user=None, host="board.local", port=2222)),
        ("pi@[fe80::1]:22", Address(user="pi", host="fe80::1", port=22)),
        ("u-1.x@10.0.0.7", Address(user="u-1.x", host="10.0.0.7", port=None)),
    ],
)
def test_addresses(place: str, address: Address) -> None:
    assert parse_address(place) == address


@pytest.mark.parametrize(
    "place",
    [
        "", "-oProxyCommand=sh", "pi@-oProxyCommand=sh", "-l@host", "pi@", "@host", "a b", "pi@a;b",
        "pi@$(reboot)", "pi@`reboot`", "pi@host|sh", "pi@host:0", "pi@host:70000", "pi@host:22x",
        "pi@host\n", "pi@../host", "pi@host:-1", "pi@ho&st", "pi@[::1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(place: str) -> None:
    with pytest.raises(UsageError, match="ssh cannot connect"):
        parse_address(place)


def test_only_what_the_manifest_names_travels(tmp_path: Path) -> None:

    artifact = make_artifact(tmp_path / "out")
    with tarfile.open(fileobj=io.BytesIO(pack([job_of(artifact)]))) as archive:
        members = archive.getmembers()
    names = {member.name for member in members}
    assert names == {"agent.pyz", *(f"artifact/{n}" for n in (
        "manifest.json", "model.tflite", "golden.safetensors", "plan.json", "profile_map.json"
    ))}  # fmt: skip
    assert all(member.isfile() and not member.uname for member in members)


@needs("sshd")
def test_two_artifacts_are_measured_in_turns_over_one_connection(
    board: Board, tmp_path: Path
) -> None:
    python = str(make_python(tmp_path / "p"))
    folders = [make_artifact(tmp_path / name) for name in ("out", "original")]
    (folders[1] / MODEL).write_bytes(b"another model that doubles")
    reseal(folders[1])
    jobs = [
        job_of(folder, ssh_config=board.config, python=python, hooks=False) for folder in folders
    ]
    found = ssh.measure_in_turns(board.place, jobs)
    digests = [sha256_of(folder / MODEL) for folder in folders]
    assert [one.artifact_sha256 for one in found] == digests
    assert len(set(digests)) == 2
    assert board.left_behind() == []


def test_another_number_of_measurements_than_asked_for_is_refused() -> None:
    with pytest.raises(MeasurementError, match="sent 1 measurements. Expected: 2"):
        ssh._read_answer(b"{}\n", 2, "pi@board")
