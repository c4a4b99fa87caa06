"""Under which names measurements of a runtime are published: which rows a fit may use for it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict

from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One name under which a runtime's latencies stand in a file of measurements.

    ``device``, ``runtime`` and ``precision`` are that file's columns, spelled as there; ``scheme``
    is which of the runtime's precisions they measure. ``engine`` names what executed the model
    where it was not this runtime itself; a fit then allows for one factor between the two.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    device: str
    runtime: str
    precision: str
    scheme: Scheme
    engine: str = ""
