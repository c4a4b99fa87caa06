"""Answers kept in a JSON file as they are found, so that a long benchmark goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """The file of one benchmark: an object with an answer (plain JSON) for each finished cell."""

    path: Path

    def known(self) -> dict[str, object]:
        """Return every cell that is finished, none where there is no file."""
        found: dict[str, object] = json.loads(self.path.read_text()) if self.path.exists() else {}
        return found

    def cell(self, name: str, work: Callable[[], Answer]) -> Answer:
        """Return the answer of a cell, from the file if it was found before."""
        known = self.known()
        if name not in known:
            found = work()
            # Another cell may have been finished by what this one called.
            known = {**self.known(), name: found}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(known, indent=1))
            part.replace(self.path)
        answer: Answer = known[name]  # type: ignore[assignment]
        return answer
