"""Every error a user can meet, one class and one exit code for each kind of cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class EdgeSDKError(Exception):
    """What was found, what was expected and the next step, in one message.

    ``exit_code`` is what the command line returns for the class. ``details`` is machine-readable
    and appears in ``--json`` output.
    """

    exit_code = 1

    def __init__(
        self,
        found: str,
        *,
        expected: str | None = None,
        next_step: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.found = found
        self.expected = expected
        self.next_step = next_step
        self.details = dict(details or {})
        super().__init__(self._message())

    def _message(self) -> str:
        parts = [_sentence(self.found)]
        if self.expected:
            parts.append(f"Expected: {_sentence(self.expected)}")
        if self.next_step:
            parts.append(f"Next: {_sentence(self.next_step)}")
        return " ".join(parts)


def _sentence(text: str) -> str:
    return text if text.endswith(("?", "!")) else text.rstrip(".") + "."


class UsageError(EdgeSDKError):
    """A flag, unit or name on the command line (or an argument in Python) is wrong."""

    exit_code = 2


class BudgetInfeasible(EdgeSDKError):
    """Nothing fits the budget. ``result`` says which limit binds and what comes nearest."""

    exit_code = 3

    def __init__(self, found: str, *, result: Any = None, **kwargs: Any) -> None:
        self.result = result
        super().__init__(found, **kwargs)


class ParityError(EdgeSDKError):
    """The emitted file does not compute what the compressed model computes.

    ``model`` is that model, where the file was run.
    """

    exit_code = 4
    model: Any = None


class TargetUnavailable(EdgeSDKError):
    """A toolchain is not installed, or cannot do what was asked of it on this machine."""

    exit_code = 5


class UnsupportedModel(EdgeSDKError):
    """The model cannot be exported, compressed or converted; names the layer and the operator."""

    exit_code = 6


class ProfileError(EdgeSDKError):
    """A device profile is malformed or lacks what was asked of it."""

    exit_code = 7


class ArtifactError(EdgeSDKError):
    """An artifact folder is corrupt, tampered with, incomplete or from a newer version."""

    exit_code = 8


class MeasurementError(EdgeSDKError):
    """A measurement failed or cannot be believed."""

    exit_code = 9


class TaskError(EdgeSDKError):
    """The user's own code or data raised, or returned something a Task cannot use."""

    exit_code = 10


class OutputError(EdgeSDKError):
    """The output folder exists, cannot be written, or the disk is full."""

    exit_code = 11


class WorkerError(EdgeSDKError):
    """A worker process died, or what ``--workers`` names cannot do the work."""

    exit_code = 12


def first_line(problem: BaseException) -> str:
    """Return the first line of what a foreign error says, its type's name where it says nothing."""
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[0]


def near_names(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return the known names closest to a misspelt one, best first, at most ``limit``."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=limit, cutoff=0.5)
    return [by_folded[match] for match in matches]


def unknown_name(kind: str, name: str, known: Iterable[str], *, listing: str) -> str:
    """Return the sentence for an unknown name: what it was, the near ones, where all are listed."""
    near = near_names(name, list(known))
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    return f"unknown {kind} {name!r}; {hint}{listing}"
