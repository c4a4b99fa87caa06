"""``edgesdk measurements``."""

from __future__ import annotations

import json

from edgesdk.cli.app import command, measurements
from edgesdk.cli.console import Answer


@command(measurements, "schema")
def schema_command() -> Answer:
    """Print the JSON schema of a measurement, for whoever writes one.

    Example: edgesdk measurements schema
    """
    from edgesdk.measurement_file import measurement_schema

    schema = measurement_schema()
    text = json.dumps(schema, indent=2)
    return Answer(
        data={"status": "ok", "schema": schema},
        show=lambda console: console.print(text, soft_wrap=True, highlight=False),
    )
