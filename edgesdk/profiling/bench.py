"""A bench: where artifacts are measured, and what has to be known to measure them there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A runner's name and place, as ``ssh:pi@board``, and what only some runners need.

    ``binary``: the runtime's benchmark program (adb). ``python``: the interpreter on the board
    that has the runtime (ssh). ``ssh_config``: OpenSSH's configuration file (ssh). ``lan``: whether
    other machines on the network may open the page (browser).
    """

    on: str
    binary: Path | None = None
    python: str | None = None
    ssh_config: Path | None = None
    lan: bool = False
