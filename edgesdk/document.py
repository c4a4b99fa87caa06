"""Versioned JSON documents: frozen dataclasses to text and back, strictly, with clear errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from edgesdk.errors import ArtifactError, EdgeSDKError, near_names

T = TypeVar("T")


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return pydantic's adapter for a class, built once: building takes milliseconds."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_builtins(value: Any) -> Any:
    """Return the value as JSON-ready dicts, lists, strings and numbers."""
    return _adapter(type(value)).dump_python(value, mode="json")


def to_json(value: Any) -> str:
    """Return the value as indented JSON with a final newline; equal values give equal text."""
    return json.dumps(to_builtins(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_builtins(
    kind: type[T], data: Any, *, what: str, error: type[EdgeSDKError] = ArtifactError
) -> T:
    """Return ``data`` as a ``kind``; unknown keys, wrong types and newer versions raise ``error``.

    ``what`` names the document in the message ("plan.json", "device profile x.toml").
    """
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > 1:
        raise error(
            f"{what} has schema_version {version}, newer than this edgesdk understands (1)",
            next_step="upgrade edgesdk",
        )
    try:
        # Strict, and as JSON: "4" is no number, 1 is no boolean, and a list may become a tuple.
        parsed: T = _adapter(kind).validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as problem:
        raise error(f"{what} is malformed: {describe(problem, kind)}") from None
    return parsed


def read_json(kind: type[T], path: Path, *, error: type[EdgeSDKError] = ArtifactError) -> T:
    """Return the document at ``path`` as a ``kind``; raises ``error`` for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except FileNotFoundError:
        raise error(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path} cannot be read as JSON: {problem}") from None
    return from_builtins(kind, data, what=path.name, error=error)


def _finite(text: str) -> float:
    """Return the number; ``ValueError`` for NaN and infinity, which JSON does not have."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def describe(problem: ValidationError, kind: Any) -> str:
    """Return the first three validation problems as ``where: what``, with near names for keys."""
    lines = []
    known = _field_names(_adapter(kind).json_schema())
    for item in problem.errors()[:3]:
        where = ".".join(str(part) for part in item["loc"]) or "the document"
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            near = near_names(str(item["loc"][-1]), known)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            lines.append(f"{where}: unknown key{hint}")
        else:
            lines.append(f"{where}: {item['msg']}")
    return "; ".join(lines)


def _field_names(schema: Any) -> set[str]:
    """Return every property name anywhere in a JSON schema."""
    names: set[str] = set()
    if isinstance(schema, dict):
        names.update(schema.get("properties", {}))
        for value in schema.values():
            names |= _field_names(value)
    elif isinstance(schema, list):
        for value in schema:
            names |= _field_names(value)
    return names
