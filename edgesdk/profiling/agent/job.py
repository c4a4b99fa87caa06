"""What is asked of a runtime, and what it found out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Job:
    """An artifact to measure: its folder and manifest, and how.

    ``sustained_s``: how long the run goes on after the timed one. ``hooks``: whether operators are
    timed too.
    """

    folder: Path
    manifest: dict[str, Any]
    threads: int
    sustained_s: float
    hooks: bool

    @property
    def model(self) -> Path:
        """The file that the runtime loads."""
        return self.folder / str(self.manifest["files"][0])


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a runtime's run told; fields named as in a Measurement are that field.

    ``samples_ms`` are the timed inferences; temperatures are those before the first and after the
    last of them.
    """

    unit: str
    threads: int
    load_ms: float | None
    first_ms: float | None
    warmup_runs: int
    samples_ms: list[float]
    sustained: list[dict[str, Any]]
    per_op: dict[str, Any] | None
    peak_memory: dict[str, Any] | None
    energy: dict[str, Any] | None
    self_test: dict[str, Any]
    temperature_before_c: float | None
    temperature_after_c: float | None
    notes: list[str]
