"""Fixtures of the command line's tests."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator

import pytest
from answers import Asking

from edgesdk.cli import app as app_module
from edgesdk.cli.app import run


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    """Run a command line here and return its exit code and what it wrote to standard output."""
    handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(app_module, "quiet_libraries", lambda: None)

    def ask(*arguments: str) -> tuple[int, str]:
        stdout = io.StringIO()
        monkeypatch.setattr(app_module, "split_stdout", lambda: stdout)
        return run(arguments), stdout.getvalue()

    yield ask
    for name, handler in handlers.items():
        signal.signal(name, handler)
