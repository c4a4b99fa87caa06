"""Progress of long work: what is being done now, and how far it is."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Progress(Protocol):
    """Receives what the pipeline is doing; the command line draws it, Python callers may."""

    def step(self, text: str) -> None:
        """Announce the next step in a few words."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Report how far the current step is."""

    def show_address(self, address: str, *, is_for_phones: bool) -> None:
        """Show an address that a person has to open, where it is for phones as a QR code, too."""


class Silent:
    """Progress that nobody watches."""

    def step(self, text: str) -> None:
        """Ignore the step."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Ignore how far it is."""

    def show_address(self, address: str, *, is_for_phones: bool) -> None:
        """Ignore the address."""


watching: ContextVar[Progress] = ContextVar("watching", default=Silent())  # noqa: B039 - no state
"""Who watches the running command, and what it does before a request says so: loading a task."""
