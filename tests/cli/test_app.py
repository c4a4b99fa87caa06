import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from answers import Asking, answered
from reference import REFERENCE_DEVICE

from edgesdk import target
from edgesdk.cli import main
from edgesdk.cli.app import app
from edgesdk.device import DeviceProfile

DEVICE = str(REFERENCE_DEVICE)
BLOBS = f"{Path(__file__).parents[1] / 'blobs_task.py'}:blobs"


def commands() -> dict[str, Any]:
    """Return every command by the words that call it."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield " ".join(words), command
        for name, child in (children or {}).items():
            yield from walk(child, (*words, name))

    return dict(walk(typer.main.get_command(app), ()))


COMMANDS = commands()


def test_the_commands_are_the_documented_ones() -> None:
    assert set(COMMANDS) == {
        "compile", "plan", "inspect", "verify", "report", "integrate", "doctor",
        "devices list", "devices show", "devices new", "devices check", "devices schema",
        "devices fit", "devices calibrate", "profile", "measurements list", "measurements show",
        "measurements compare", "measurements export", "measurements schema",
    }  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_teaches_itself(
    words: str, asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    command = COMMANDS[words]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{words}: {parameter.name} is not explained"
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {"--json", "--quiet", "--debug"} <= flags
    code, _ = asking(*words.split(), "--help")
    assert code == 0
    shown = capsys.readouterr().out
    assert "Example: edgesdk" in shown


@pytest.mark.parametrize("words", COMMANDS)
def test_the_example_of_every_command_is_one_of_it_and_parses(words: str) -> None:
    [line] = [x for x in COMMANDS[words].help.splitlines() if x.strip().startswith("Example:")]
    example = shlex.split(line.split(":", 1)[1])
    prefix = ["edgesdk", *words.split()]
    assert example[: len(prefix)] == prefix
    COMMANDS[words].make_context(words, example[len(prefix) :])


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command(
    arguments: tuple[str, ...], asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asking(*arguments) == (0, "")
    captured = capsys.readouterr()
    for name in (
        "compile",
        "plan",
        "inspect",
        "verify",
        "profile",
        "devices",
        "measurements",
        "doctor",
    ):
        assert name in captured.out
    assert captured.err == ""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder during the test, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


USAGE = [
    (["comple"], "compile"),
    (["devices", "lst"], "list"),
    (["devices"], "command is missing"),
    (["compile"], "TASK"),
    (["compile", BLOBS, "--device", DEVICE], "--out"),
    (["compile", BLOBS, "-o", "x"], "--device"),
    (["compile", BLOBS, "--devise", DEVICE, "-o", "x"], "--device"),
    (["compile", BLOBS, "--device", DEVICE, "-o", "x", "extra"], "extra"),
    (["compile", BLOBS, "--device", DEVICE, "-o", "x", "--latency", "8 parsecs"], "ms"),
    (["compile", BLOBS, "--device", DEVICE, "-o", "x", "--size", "8"], "no unit"),
    (["plan", BLOBS, "--device", DEVICE, "--max-drop", "2"], "1%"),
    (["plan", BLOBS, "--device", "hots"], "did you mean 'host'"),
    (["plan", BLOBS, "--device", "/no/such.toml"], "no device profile"),
    (["plan", BLOBS, "--device", "host", "--target", "tflit"], "did you mean 'tflite'"),
    (["plan", BLOBS, "--device", DEVICE, "--accelerator", "tpu"], "unknown accelerator"),
    (["plan", "demo:digit", "--device", "host"], "did you mean 'digits'"),
    (["plan", "nothing", "--device", "host"], "does not name a task"),
    (["compile", BLOBS, "--device", DEVICE, "-o", "x", "--plan", "/no/plan.json"], "not exist"),
    (["inspect", BLOBS, "--device", "hots"], "did you mean 'host'"),
    (["devices", "show", "hots"], "did you mean 'host'"),
    (["--json"], "--json"),
    (["--version-please"], "--version-please"),
]


@pytest.mark.parametrize(("arguments", "said"), USAGE, ids=[" ".join(a)[-40:] for a, _ in USAGE])
@pytest.mark.usefixtures("reference_device")
def test_a_wrong_command_line_is_one_clear_message(
    arguments: list[str], said: str, asking: Asking, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    code, data = answered(asking(*arguments, "--json"))
    assert code == 2
    assert (data["status"], data["error"], data["exit_code"]) == ("error", "UsageError", 2)
    capsys.readouterr()
    if "--json" not in arguments:
        code, text = asking(*arguments)
        assert (code, text) == (2, "")
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert not (here / "x").exists()


@pytest.mark.parametrize(
    "arguments", [("comple", "--help"), ("compile", "--bogus", "--help"), ("--bogus", "--help")]
)
def test_help_on_what_does_not_exist_is_a_usage_error_too(
    arguments: tuple[str, ...], asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = asking(*arguments)
    assert code == 2
    error = capsys.readouterr().err
    assert "error:" in error
    assert "Traceback" not in error


def task_file(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    path.write_text(body)
    return f"{path}:task"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("def task():\n    raise RuntimeError('oops')\n", 10, "oops"),
        ("def task():\n    return 7\n", 10, "int"),
        ("def task(\n", 10, "SyntaxError"),
        ("import nothing_like_it\n", 10, "nothing_like_it"),
        ("raise SystemExit(0)\n", 10, "SystemExit"),
        ("x = 1\n", 10, "task"),
    ],
    ids=["raises", "another type", "syntax", "import", "exits", "no function"],
)
def test_what_the_users_file_does_wrong_is_theirs_and_told(
    body: str, code: int, said: str, asking: Asking, tmp_path: Path
) -> None:
    reference = task_file(tmp_path, body)
    found, data = answered(asking("inspect", reference, "--json"))
    assert (found, data["exit_code"]) == (code, code)
    assert said in data["message"]


INTERRUPTING = """
import os, signal, time
def task():
    os.kill(os.getpid(), signal.{name})
    time.sleep(10)
"""


@pytest.fixture
def heard_sigint() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell starts background jobs with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_sigint")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_ends_with_130_and_says_how_to_go_on(
    name: str, asking: Asking, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = task_file(tmp_path, INTERRUPTING.format(name=name))
    code, data = answered(asking("inspect", reference, "--json"))
    assert (code, data["exit_code"], data["error"]) == (130, 130, "Interrupted")
    code, text = asking("inspect", reference)
    assert (code, text) == (130, "")
    error = capsys.readouterr().err
    assert "run the same command again" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("problem", [RuntimeError("oh"), KeyError("oh"), AssertionError("oh")])
def test_our_own_bug_is_called_one(
    problem: Exception,
    asking: Asking,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise problem

    monkeypatch.setattr("edgesdk.device_files.profile_names", fail)
    code, data = answered(asking("devices", "list", "--json"))
    assert (code, data["error"], data["exit_code"]) == (1, "Bug", 1)
    assert type(problem).__name__ in data["message"]
    capsys.readouterr()
    assert asking("devices", "list") == (1, "")
    error = capsys.readouterr().err
    assert "a bug in edgesdk" in error
    assert "--debug" in error
    assert "Traceback" not in error
    assert asking("devices", "list", "--debug")[0] == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_doctor_says_what_is_here_and_how_to_get_the_rest(
    asking: Asking, cache_root: Path
) -> None:
    (cache_root / "kept").write_bytes(b"x" * 1000)
    code, data = answered(asking("doctor", "--json"))
    assert code == 0
    assert {chain["target"] for chain in data["targets"]} >= {"coreml", "executorch", "tflite"}
    assert all(chain["install"].startswith("pip install") for chain in data["targets"])
    assert "cpu" in data["accelerators"]
    assert data["cache"] == {"folder": str(cache_root), "bytes": 1000}
    assert asking("doctor")[0] == 0


def test_the_doctor_names_the_command_of_each_missing_extra(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = target.installed_version
    monkeypatch.setattr(
        target, "installed_version", lambda name: None if "vela" in name else found(name)
    )
    code, text = asking("doctor")
    assert code == 0
    assert "tflite, ethos-u-vela: pip install 'edgesdk[arm]'" in text


def test_a_layer_is_inspected_with_and_without_a_device(
    asking: Asking, reference_device: DeviceProfile
) -> None:
    code, data = answered(asking("inspect", BLOBS, "--json"))
    assert code == 0
    linear = [row for row in data["layers"] if row["kind"] == "linear"]
    assert [row["macs"] for row in linear] == [8 * 96, 96 * 96, 96 * 4]
    assert [row["parameters"] for row in linear] == [8 * 96 + 96, 96 * 96 + 96, 96 * 4 + 4]
    assert [row["activation_bytes"] for row in linear] == [4 * 96, 4 * 96, 4 * 4]
    assert all(row["predicted_ms"] is None for row in data["layers"])
    assert data["total"]["macs"] == sum(row["macs"] for row in linear)
    code, data = answered(asking("inspect", BLOBS, "--device", DEVICE, "--json"))
    total = data["total"]
    spent = sum(row["predicted_ms"] for row in data["layers"]) + total["overhead_ms"]
    assert spent == pytest.approx(total["predicted_ms"])
    low, high = total["predicted_interval_ms"]
    assert low < total["predicted_ms"] < high
    code, text = asking("inspect", BLOBS, "--device", DEVICE)
    assert code == 0
    assert "linear" in text


@pytest.mark.usefixtures("reference_device", "in_process")
def test_the_main_job_from_plan_to_verified_artifact(asking: Asking, tmp_path: Path) -> None:
    out, plan = tmp_path / "[out]", tmp_path / "plan.json"
    budget = ("--device", DEVICE, "--size", "90%", "--max-drop", "2%")

    device = ("--device", DEVICE)
    code, planned = answered(
        asking("plan", BLOBS, *device, "--size", "40KB", "-o", str(plan), "--json")
    )
    assert (code, planned["status"], planned["artifact"]) == (0, "ok", None)
    assert json.loads(plan.read_text())["option"] == planned["option"]

    code, made = answered(asking("compile", BLOBS, *budget, "-o", str(out), "--json"))
    assert (code, made["status"], made["artifact"]) == (0, "ok", str(out))
    assert made["verified"]["accuracy"] > 0.9
    assert made["measured"]["latency_ms"] is None
    assert all(verdict["met"] for verdict in made["budget"])

    code, refused = answered(asking("compile", BLOBS, *budget, "-o", str(out), "--json"))
    assert (code, refused["error"]) == (11, "OutputError")
    code, refused = answered(asking("plan", BLOBS, *budget[:2], "-o", str(plan), "--json"))
    assert (code, refused["error"]) == (11, "OutputError")

    code, checked = answered(asking("verify", str(out), "--task", BLOBS, "--json"))
    assert (code, checked["status"], checked["verification"]) == (0, "ok", "verified")
    code, text = asking("verify", str(out))
    assert code == 0
    assert "passed golden vectors" in text

    replayed = tmp_path / "replayed"
    replay = ("--plan", str(out / "plan.json"), "-o", str(replayed))
    code, again = answered(asking("compile", BLOBS, *device, *replay, "--json"))
    assert (code, again["option"]) == (0, made["option"])
    model = made["files"][0]
    assert (replayed / model).read_bytes() == (out / model).read_bytes()

    content = bytearray((out / model).read_bytes())
    content[-1] ^= 1
    (out / model).write_bytes(content)
    code, damaged = answered(asking("verify", str(out), "--json"))
    assert (code, damaged["error"]) == (8, "ArtifactError")


@pytest.mark.usefixtures("reference_device", "in_process")
def test_a_result_is_shown_to_a_person_with_its_path(asking: Asking, tmp_path: Path) -> None:
    out = tmp_path / "[red]out[/]"
    code, text = asking("compile", BLOBS, "--device", DEVICE, "--size", "90%", "-o", str(out))
    assert code == 0
    assert str(out) in text
    assert out.is_dir()
    for word in ("keeps its budget", "File size", "verified", "yes", "edgesdk report"):
        assert word in text


@pytest.mark.usefixtures("reference_device", "in_process")
def test_nothing_fits_is_exit_3_and_says_what_comes_nearest(
    asking: Asking, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compile", BLOBS, "--device", DEVICE, "--size", "100B", "-o", str(tmp_path / "x")]
    code, data = answered(asking(*arguments, "--json"))
    assert (code, data["status"]) == (3, "infeasible")
    assert (data["artifact"], data["binding"]) == (None, "size_bytes")
    assert data["plan"]
    capsys.readouterr()
    code, text = asking(*arguments)
    assert (code, text) == (3, "")
    error = capsys.readouterr().err
    assert "infeasible:" in error
    assert "size_bytes" in error
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("reference_device", "in_process")
def test_an_artifact_that_computes_something_else_is_exit_4(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    assert asking("compile", BLOBS, "--device", DEVICE, "--size", "90%", "-o", out)[0] == 0
    monkeypatch.setattr("edgesdk.verification.sqnr_db", lambda *_: 3.0)
    monkeypatch.setattr("edgesdk.verification.torch.equal", lambda *_: False)
    code, data = answered(asking("verify", out, "--json"))
    assert (code, data["status"], data["verification"]) == (4, "error", "failed")
    code, text = asking("verify", out)
    assert code == 4
    assert "FAILED golden vectors" in text


def test_main_exits_with_the_code(monkeypatch: pytest.MonkeyPatch, asking: Asking) -> None:
    monkeypatch.setattr(sys, "argv", ["edgesdk", "--help"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0


NOISY = """
import os, sys
print("noise from an import")
def task():
    print("noise from Python", flush=True)
    os.write(1, b"noise from C\\n")
    os.system("echo noise from a child")
    sys.stdout.write("noise without an end")
    return "no task"
"""


def test_what_libraries_print_never_reaches_standard_output(tmp_path: Path) -> None:
    reference = task_file(tmp_path, NOISY)
    said = subprocess.run(
        [sys.executable, "-m", "edgesdk", "inspect", reference, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answered((said.returncode, said.stdout)) == (10, json.loads(said.stdout))
    for source in ("an import", "Python", "C", "a child"):
        assert f"noise from {source}" in said.stderr


def test_a_reader_that_leaves_is_no_bug() -> None:
    script = f"{shlex.quote(sys.executable)} -m edgesdk devices list --json | true"
    said = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert said.stderr == ""
