"""Versioned JSON documents: frozen dataclasses to text and back, strictly, with clear errors."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
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
    refuse_newer(data, what=what, error=error)
    if isinstance(data, dict) and _is_versioned(kind) and "schema_version" not in data:
        raise error(f"{what} has no schema_version", expected="a document that edgesdk wrote")
    try:
        parsed: T = _validate(kind, data)
    except ValidationError as problem:
        raise error(f"{what} is malformed: {describe(problem, kind)}") from None
    return parsed


def _is_versioned(kind: Any) -> bool:
    return is_dataclass(kind) and any(item.name == "schema_version" for item in fields(kind))


def refuse_newer(data: Any, *, what: str, error: type[EdgeSDKError]) -> None:
    """Raise ``error`` for a document whose ``schema_version`` this edgesdk does not understand."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > 1:
        raise error(
            f"{what} has schema_version {version}, newer than this edgesdk understands (1)",
            next_step="upgrade edgesdk",
        )


def read_json(kind: type[T], path: Path, *, error: type[EdgeSDKError] = ArtifactError) -> T:
    """Return the document at ``path`` as a ``kind``; raises ``error`` for anything else."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise error(f"{path} does not exist") from None
    except OSError as problem:
        raise error(f"{path} cannot be read as JSON: {problem}") from None
    data = parse_json(content, what=str(path), error=error)
    return from_builtins(kind, data, what=path.name, error=error)


def parse_json(content: bytes, *, what: str, error: type[EdgeSDKError]) -> Any:
    """Return the JSON value in those bytes; ``error`` for broken text and numbers not finite."""
    try:
        text = content.decode("utf-8")
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as problem:
        raise error(f"{what} cannot be read as JSON: {problem}") from None


def _finite(text: str) -> float:
    """Return the number; ``ValueError`` for NaN and infinity, which JSON does not have."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def describe(problem: ValidationError, kind: Any) -> str:
    """Return the first three validation problems as ``where: what``, with near names for keys."""
    return "; ".join(f"{where}: {what}" for where, what in _describe_all(problem, kind)[:3])


def find_problems(kind: Any, data: Any) -> list[tuple[str, str]]:
    """Return every ``(where, what)`` that keeps the data from being a ``kind``; empty if it is one.

    What a ``kind`` itself raises when it is made is raised here too.
    """
    try:
        _validate(kind, data)
    except ValidationError as problem:
        return _describe_all(problem, kind)
    return []


def json_schema(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a class, with its docstrings as descriptions."""
    return _adapter(kind).json_schema()


def _validate(kind: Any, data: Any) -> Any:
    # Strict, and as JSON: "4" is no number, 1 is no boolean, and a list may become a tuple.
    return _adapter(kind).validate_json(json.dumps(data, default=str), strict=True)


def _describe_all(problem: ValidationError, kind: Any) -> list[tuple[str, str]]:
    known = _field_names(json_schema(kind))
    found = []
    for item in problem.errors():
        where = ".".join(str(part) for part in item["loc"]) or "the document"
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            near = near_names(str(item["loc"][-1]), known)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            found.append((where, f"unknown key{hint}"))
        else:
            found.append((where, item["msg"]))
    return found


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
