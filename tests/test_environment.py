"""Environments of their own: made once, whole or not at all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgesdk import environment
from edgesdk.environment import Environment
from edgesdk.errors import TargetUnavailable

OLD = Environment(
    name="old-runtime",
    version="1.0",
    requirements=("old-runtime==1.0",),
    pythons=((3, 11), (3, 10)),
    otherwise="name with --python the Python of an environment that has it",
)


def answering(monkeypatch: pytest.MonkeyPatch, code: int, said: bytes = b"") -> list[list[str]]:
    """Let every command end with a code, and return the list of them."""
    asked: list[list[str]] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(words)
        if words[1:3] == ["-m", "venv"] and not code:
            Path(words[3]).mkdir()
        return subprocess.CompletedProcess(words, code, b"", said)

    monkeypatch.setattr(environment.subprocess, "run", run)
    monkeypatch.setattr(environment.sys, "version_info", (3, 11, 0))
    return asked


def test_it_is_made_once_and_appears_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = answering(monkeypatch, 0)
    assert not OLD.is_made(tmp_path)
    python = OLD.prepare(tmp_path)
    assert python.is_relative_to(tmp_path / "runtimes/old-runtime-1.0")
    assert OLD.prepare(tmp_path) == python
    assert OLD.is_made(tmp_path)
    assert len(asked) == 2
    assert asked[1][-1] == "old-runtime==1.0"
    assert [path.name for path in (tmp_path / "runtimes").iterdir()] == ["old-runtime-1.0"]


def test_another_run_may_have_made_it_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answering(monkeypatch, 0)
    home = tmp_path / "runtimes/old-runtime-1.0"
    install = Environment._install

    def meanwhile(self: Environment, words: list[str]) -> None:
        install(self, words)
        home.mkdir(parents=True, exist_ok=True)
        (home / "complete").touch()

    monkeypatch.setattr(Environment, "_install", meanwhile)
    assert OLD.prepare(tmp_path).is_relative_to(home)


def test_one_that_cannot_be_made_says_how_to_go_on_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answering(monkeypatch, 1, b"ERROR: No matching distribution")
    with pytest.raises(TargetUnavailable, match="No matching distribution") as raised:
        OLD.prepare(tmp_path)
    assert "--python" in str(raised.value.next_step)
    assert not list((tmp_path / "runtimes").iterdir())


def test_a_python_that_is_too_new_needs_an_older_one_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment.sys, "version_info", (3, 14, 0))
    monkeypatch.setattr(environment.shutil, "which", lambda _: None)
    with pytest.raises(TargetUnavailable, match=r"no wheel for Python 3\.14"):
        OLD.prepare(tmp_path)
