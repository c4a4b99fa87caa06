import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from reference import Register

from edgesdk import errors
from edgesdk.artifact import TensorSpec
from edgesdk.document import to_builtins
from edgesdk.errors import ArtifactError
from edgesdk.running import child, process
from edgesdk.running.process import ArtifactProcess
from edgesdk.running.wire import read_message, write_message
from edgesdk.target import Emission

SPEC = TensorSpec(name="x", shape=(1, 2), dtype="float32", from_torch=(0, 1))
EMISSION = Emission(
    files=("model.bin",), inputs=(SPEC,), outputs=(SPEC,), tool_versions={}, layer_of={}
)
BATCHES = np.arange(6, dtype=np.float32).reshape(3, 1, 2)


@pytest.fixture(autouse=True)
def unruly(register_target: Register) -> None:
    register_target("unruly", "unruly_target:TARGET", Path(__file__).parent)


def starting(folder: Path, behaviour: str) -> ArtifactProcess:
    return ArtifactProcess(
        target="unruly", folder=folder, emission=EMISSION, host_runtime=behaviour, threads=2
    )


def children() -> set[str]:
    """Return the processes this one has started and not yet buried, zombies included."""
    found: set[str] = set()
    for task in Path("/proc/self/task").glob("*"):
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile, of some library
            found.update((task / "children").read_text().split())
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").glob("*")))


@pytest.fixture(autouse=True)
def nothing_stays() -> Any:
    before = children(), open_files()
    yield
    assert (children(), open_files()) == before


def test_an_artifact_runs_however_noisy_its_runtime_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with starting(tmp_path, "is noisy") as running:
        assert running.identity.runtime == "unruly"
        assert running.identity.threads == 2
        assert running.memory_bytes == 4096
        assert running.load_ms > 0
        [doubled] = running.run([BATCHES])
        assert doubled.dtype == np.float32
        assert np.array_equal(doubled, 2 * BATCHES)
        samples = running.time([BATCHES[0]], 4)
        assert len(samples) == 4
        assert all(sample > 0 for sample in samples)
        # What the runtime refuses is an error about the artifact, and the next request works.
        with pytest.raises(ArtifactError, match="could not run the artifact.*bad shape"):
            running.run([np.zeros((1, 1, 5))])
        assert np.array_equal(running.run([BATCHES])[0], 2 * BATCHES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("crashes on open", "crashed with SIGSEGV while asked to open"),
        ("exits on open", "ended with exit code 3 while asked to open"),
    ],
)
def test_an_end_while_opening_says_what_happened(tmp_path: Path, behaviour: str, said: str) -> None:
    with pytest.raises(ArtifactError, match=said) as caught, starting(tmp_path, behaviour):
        pass
    assert "about to open" in str(caught.value)
    assert repr(behaviour) in str(caught.value)
    assert caught.value.exit_code == 8


def test_a_crash_while_running_says_what_happened(tmp_path: Path) -> None:
    with starting(tmp_path, "crashes on run") as running:
        with pytest.raises(ArtifactError, match="crashed with SIGSEGV while asked to run"):
            running.run([BATCHES])
        # A dead process is dead; a second request says so too instead of waiting for it.
        with pytest.raises(ArtifactError, match="crashed with SIGSEGV"):
            running.run([BATCHES])


def test_a_hang_while_opening_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_OPEN_TIMEOUT_S", 0.05)
    with (
        pytest.raises(ArtifactError, match="did not answer in time while asked to open"),
        starting(tmp_path, "is noisy"),
    ):
        pass


def test_a_hang_while_running_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_RUN_TIMEOUT_S", 0.2)
    with starting(tmp_path, "hangs on run") as running:
        start = time.monotonic()
        with pytest.raises(ArtifactError, match="did not answer in time while asked to run"):
            running.run([BATCHES])
        assert time.monotonic() - start < 30


def test_an_interruption_takes_the_process_along(tmp_path: Path) -> None:
    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), starting(tmp_path, "hangs on run") as running:  # noqa: PT012
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            running.run([BATCHES])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def open_request(behaviour: str, **changes: object) -> dict[str, Any]:
    request = {
        "request": "open",
        "target": "unruly",
        "folder": "/",
        "emission": to_builtins(EMISSION),
        "host_runtime": behaviour,
        "threads": 1,
    }
    return {**request, **changes}


def test_the_worker_answers_every_error_and_ends_with_its_input() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgesdk.running.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        write_message(worker.stdin, request, [])  # type: ignore[arg-type]
        reply, _ = read_message(worker.stdout)  # type: ignore[arg-type]
        return dict(reply.get("error", reply))

    assert ask({"request": "run"})["found"] == "no artifact is open"
    raised = ask(open_request("raises on open"))
    assert raised["class"] == "ArtifactError"
    assert "no such opcode" in raised["found"]
    # A class of the target's own arrives as the class it extends, its message whole.
    assert ask(open_request("refuses on open")) == {
        "class": "ArtifactError",
        "found": "built by 0.9",
        "expected": "1.0",
        "next_step": "emit it again",
    }
    lacking = ask(open_request("lacks a library"))
    assert (lacking["class"], lacking["next_step"]) == ("TargetUnavailable", "pip install library")
    assert ask(open_request("", target="unruli"))["class"] == "UsageError"
    assert ask(open_request("", emission={}))["class"] == "ArtifactError"
    assert ask(open_request("is well"))["memory_bytes"] == 4096
    worker.stdin.close()
    assert worker.wait(timeout=30) == 0
    assert worker.stdout.read() == b""
    worker.stdout.close()


@pytest.mark.parametrize("name", ["ArtifactError", "TargetUnavailable", "MeasurementError"])
def test_an_error_keeps_its_class_and_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    error = {"class": name, "found": "it", "expected": "that", "next_step": "do this"}
    monkeypatch.setattr(child, "read_message", lambda _: ({"error": error}, []))
    monkeypatch.setattr(child, "write_message", lambda *_: None)
    with pytest.raises(getattr(errors, name)) as caught, starting(tmp_path, ""):
        pass
    assert str(caught.value) == "it. Expected: that. Next: do this."
