"""Runners: each measures an artifact in one place, found by the text before the colon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgesdk.errors import UsageError, unknown_name
from edgesdk.measurement import Measurement
from edgesdk.profiling.job import Job


class Runner(Protocol):
    """One way to measure; ``place`` is what follows the colon, empty where there is none."""

    def __call__(self, place: str, job: Job) -> Measurement:
        """Return what was measured; ``MeasurementError`` where it could not be, ``UsageError``
        for a place that cannot be."""


class InTurns(Protocol):
    """One way to measure one or two artifacts in the same rounds."""

    def __call__(self, place: str, jobs: Sequence[Job]) -> list[Measurement]:
        """Return what was measured of each; raises as a ``Runner``."""


def find_in_turns(name: str) -> InTurns | None:
    """Return what measures in turns where a text such as ``local`` names, if anything does."""
    from edgesdk.profiling import local, ssh

    both: dict[str, InTurns] = {"local": local.measure_in_turns, "ssh": ssh.measure_in_turns}
    return both.get(name.partition(":")[0])


def find_runner(name: str) -> tuple[Runner, str]:
    """Return the runner and the place that a text such as ``ssh:pi@board`` names."""
    from edgesdk.profiling import adb, browser, imported, local, ssh

    runners: dict[str, Runner] = {
        "local": local.measure,
        "ssh": ssh.measure,
        "adb": adb.measure,
        "browser": browser.measure,
        "import": imported.measure,
    }
    kind, _, place = name.partition(":")
    if kind not in runners:
        listing = (
            "known: local, ssh:USER@HOST[:PORT], adb[:SERIAL], browser[:wasm|webgpu], import:FILE"
        )
        raise UsageError(unknown_name("runner", kind, runners, listing=listing))
    return runners[kind], place
