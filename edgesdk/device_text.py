"""A device profile as TOML text: what people edit, and what commands write."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edgesdk.device import DeviceProfile
from edgesdk.document import to_builtins

# Tables whose bare numbers share the ``source`` and ``kind`` that stand in the table.
_SHARING = re.compile(r"memory|runtime\.precisions\.[^.]+(\.kernels\.[^.]+)?")
_Origin = tuple[str, str]


def profile_text(profile: DeviceProfile) -> str:
    """Return the profile as TOML that reads back equal; equal profiles give equal text.

    What is absent or empty is left out. In a table of coefficients, the source and kind that most
    of its numbers share are written once; a number with another source keeps its own.
    """
    return "\n".join(_table("", to_builtins(profile), None)).lstrip("\n") + "\n"


def toml_value(value: Any) -> str:
    """Return a string, number, truth value, list or flat table as TOML on one line."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}"
    return f"[{', '.join(toml_value(item) for item in value)}]"


def _table(path: str, table: Mapping[str, Any], inherited: _Origin | None) -> Iterator[str]:
    """Yield the lines of a table: its own keys first, then the tables inside it."""
    present = {key: value for key, value in table.items() if value not in (None, [], {}, "")}
    nested = {key: value for key, value in present.items() if _is_nested(value)}
    origin = inherited
    if _SHARING.fullmatch(path):
        origin = _common_origin(table, inherited)
        if origin is not None and origin != inherited:
            yield f"source = {toml_value(origin[0])}"
            yield f"kind = {toml_value(origin[1])}"
    for key, value in present.items():
        if key not in nested:
            yield from _line(key, value, origin)
    for key, value in nested.items():
        inner = f"{path}.{_key(key)}".lstrip(".")
        if isinstance(value, list):
            for item in value:
                yield from ("", f"[[{inner}]]", *_table(inner, item, origin))
        elif all(_is_nested(item) for item in value.values()):
            yield from _table(inner, value, origin)  # it holds tables and nothing of its own
        else:
            yield from ("", f"[{inner}]", *_table(inner, value, origin))


def _line(key: str, value: Any, origin: _Origin | None) -> Iterator[str]:
    if _is_quantity(value) and (value["source"], value["kind"]) == origin:
        yield f"{_key(key)} = {toml_value(value['value'])}"
    elif isinstance(value, list) and (key == "notes" or isinstance(value[0], Mapping)):
        yield f"{_key(key)} = ["
        yield from (f"    {toml_value(_without_empty(item))}," for item in value)
        yield "]"
    else:
        yield f"{_key(key)} = {toml_value(value)}"


def _common_origin(table: Mapping[str, Any], inherited: _Origin | None) -> _Origin | None:
    """Return the source and kind that most numbers in and under the table have."""
    counts = Counter((item["source"], item["kind"]) for item in _all_quantities(table))
    if not counts:
        return inherited
    (origin, count), *_ = counts.most_common(1)
    return origin if count > 1 or origin == inherited else inherited


def _all_quantities(value: Any) -> Iterator[Mapping[str, Any]]:
    if _is_quantity(value):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _all_quantities(item)


def _is_quantity(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"value", "source", "kind"}


def _is_nested(value: Any) -> bool:
    """Return whether a value gets tables of its own: it holds quantities or further tables."""
    if isinstance(value, list):
        return any(isinstance(part, Mapping) for item in value for part in _parts(item))
    return isinstance(value, Mapping) and not _is_quantity(value)


def _parts(item: Any) -> Iterable[Any]:
    return item.values() if isinstance(item, Mapping) else ()


def _without_empty(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: value for key, value in item.items() if value != ""}
    return item


def _number(value: float) -> str:
    """Return the shortest text that reads back equal: 6e9, 1048576, 2.19e-6."""
    short = f"{value:g}"
    text = short if float(short) == value else repr(value)
    if float(text).is_integer() and "e" not in text:
        return text.removesuffix(".0")
    return re.sub(r"e([+-])0*(\d)", lambda found: f"e{found[1].strip('+')}{found[2]}", text)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)
