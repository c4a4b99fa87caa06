"""A host runtime: what runs an artifact on this machine, and what its word is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict


@dataclass(frozen=True, kw_only=True)
class HostRuntime:
    """What runs a target's file on this machine, by name, and the standing of what that proves.

    "verified": the runtime the file is made for. "interpreted": anything else that evaluates the
    file as its format says; ``note`` then says what it is not, wherever such a figure is shown.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    standing: Literal["verified", "interpreted"] = "verified"
    note: str = ""
