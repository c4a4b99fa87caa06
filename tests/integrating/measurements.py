"""What every app's measurement has to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from edgesdk.document import from_builtins
from edgesdk.measurement import Measurement

SCHEMA = Path(__file__).parents[2] / "docs/reference/measurement.schema.json"


def check_measurement(document: Any) -> Measurement:
    """Return what an app told as a measurement; fails unless schema and class both take it."""
    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    return from_builtins(Measurement, document, what="the app's measurement")
