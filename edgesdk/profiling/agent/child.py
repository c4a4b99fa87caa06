"""Other programs that the agent runs, which end when it does."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .problem import AgentError

_running: list[subprocess.Popen[bytes]] = []


def run(words: list[str], folder: Path, longest_s: float) -> str:
    """Return what a program says; ``AgentError`` with its last line of error where it fails."""
    name = Path(words[0]).name
    try:
        process = subprocess.Popen(  # noqa: S603 - a list of words, no shell
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as problem:
        raise AgentError(f"{name} cannot be started: {problem.strerror}") from None
    _running.append(process)
    try:
        said = process.communicate(timeout=longest_s)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise AgentError(f"{name} did not end within {longest_s:.0f} s") from None
    finally:
        process.kill()
        process.wait()
        _running.remove(process)
    if process.returncode:
        lines = [line for line in said.splitlines() if "[E]" in line] or said.splitlines()
        last = lines[-1].strip()[:300] if lines else "it said nothing"
        raise AgentError(f"{name} failed with exit code {process.returncode}: {last}")
    return said


def kill_all() -> None:
    """End what still runs: the agent is about to end, and nobody waits for it."""
    for process in list(_running):
        process.kill()
