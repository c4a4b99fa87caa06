"""A quantity of a device profile: a number, where it comes from and what kind of evidence it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

Evidence = Literal["datasheet", "measured", "fitted", "estimated"]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number, where it comes from and what kind of evidence that is; its unit is in its name."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    value: float
    source: str
    kind: Evidence
