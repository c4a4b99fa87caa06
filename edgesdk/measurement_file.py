"""Read a measurement that an app, an agent or a person hands over: limited, strict, explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgesdk.document import from_builtins, json_schema, parse_json
from edgesdk.errors import MeasurementError
from edgesdk.measurement import Measurement

LIMIT_BYTES = 4_000_000
"""A measurement of ten thousand operators and an hour of slices stays below a third of it."""

_NEXT = (
    "measure again with a program of this version; "
    "'edgesdk measurements schema' prints what the file has to hold"
)


def read_measurement(path: Path) -> Measurement:
    """Return the measurement in a JSON file; ``MeasurementError`` for anything else."""
    try:
        with path.open("rb") as stream:
            content = stream.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise MeasurementError(f"{path} does not exist") from None
    except OSError as problem:
        raise MeasurementError(f"{path} cannot be read: {problem.strerror}") from None
    return parse_measurement(content, what=path.name)


def parse_measurement(content: bytes, *, what: str) -> Measurement:
    """Return the measurement in those bytes of JSON; ``what`` names them in the error.

    Raises ``MeasurementError`` for too many bytes, broken JSON, numbers that are not finite,
    unknown keys (naming the near ones), another schema version and values that cannot be: negative
    times, percentiles out of order, a clock that runs backwards.
    """
    if len(content) > LIMIT_BYTES:
        raise MeasurementError(
            f"{what} is larger than {LIMIT_BYTES / 1e6:.0f} MB",
            expected="one measurement as JSON",
            next_step="record fewer slices, and percentiles instead of samples",
        )
    data = parse_json(content, what=what, error=MeasurementError)
    try:
        return from_builtins(Measurement, data, what=what, error=MeasurementError)
    except MeasurementError as problem:
        raise MeasurementError(
            problem.found, expected=problem.expected, next_step=problem.next_step or _NEXT
        ) from None


def measurement_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a measurement, generated from its dataclasses.

    What needs two keys at once (the order of percentiles, a clock that runs forwards) is left to
    reading.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **json_schema(Measurement),
    }
