"""The JSON schema of a device profile as people write it."""

from __future__ import annotations

from typing import Any, get_args

from edgesdk.device import DeviceProfile
from edgesdk.document import json_schema
from edgesdk.quantity import Evidence
from edgesdk.quantity_range import RANGES

# Tables in which a number may stand bare, under a source and kind that the table states once.
_SHARING = ("Memory", "PrecisionCost", "KernelCost")
_QUANTITY = {"$ref": "#/$defs/Quantity"}


def profile_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a profile's TOML, with units, ranges and descriptions.

    It is generated from the dataclasses, so it cannot differ from what is read. What needs two keys
    at once (a bare number has a source in its table, ``name`` is the file's) is left to
    ``edgesdk devices check``.
    """
    schema = json_schema(DeviceProfile)
    for name, definition in (("DeviceProfile", schema), *schema["$defs"].items()):
        properties = definition.get("properties", {})
        for key, described in properties.items():
            if key in RANGES:
                properties[key] = _ranged(key, described, bare=name in _SHARING)
        if name in _SHARING:
            properties["source"] = {"type": "string", "minLength": 1}
            properties["kind"] = {"enum": list(get_args(Evidence))}
            properties["source"]["description"] = "The source of this table's bare numbers."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _ranged(key: str, described: dict[str, Any], *, bare: bool) -> dict[str, Any]:
    limits = RANGES[key]
    between = {"minimum": limits.low, "maximum": limits.high}
    if not limits.sourced:
        return {**described, **between, "description": limits.hint}
    quantity = {**_QUANTITY, "properties": {"value": between}}
    number = {"type": "number", **between}
    return {"description": limits.hint, **({"anyOf": [quantity, number]} if bare else quantity)}
