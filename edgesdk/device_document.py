"""One profile as a TOML document: read, every number checked, every problem found."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgesdk.device import DeviceKind, DeviceProfile
from edgesdk.document import find_problems, from_builtins, refuse_newer
from edgesdk.errors import ProfileError
from edgesdk.quantity_range import RANGES

# A profile is a few pages of text; anything of this size is some other file.
_MAXIMUM_FILE_BYTES = 1_000_000
_LEAST_RAM_BYTES: Mapping[DeviceKind, float] = {
    "phone": 2**26,
    "embedded": 2**24,
    "computer": 2**28,
    "microcontroller": 1024,
}
_ORIGIN = ("source", "kind")


def read_profile(path: Path) -> DeviceProfile:
    """Return the profile in a TOML file.

    Raises ``ProfileError``, the first of ``profile_problems``, for a file that cannot be right.
    """
    data = with_sources(read_toml(path))
    for problem in _problems(path, data):
        raise problem
    return _parse(path.name, data)


def profile_problems(path: Path) -> tuple[ProfileError, ...]:
    """Return everything that is wrong with a profile's file; nothing where it can be read.

    That is: text that is not TOML, an unknown or missing key, a number without source and kind, a
    value that cannot be (negative, or in another unit than the key says), a ``name`` that is not
    the file's, one way of running stated twice.
    """
    try:
        return tuple(_problems(path, with_sources(read_toml(path))))
    except ProfileError as problem:
        return (problem,)


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file of a profile's size holds; ``ProfileError`` for any other file."""
    try:
        if path.stat().st_size > _MAXIMUM_FILE_BYTES:
            raise ProfileError(
                f"{path} is larger than {_MAXIMUM_FILE_BYTES} bytes",
                expected="a device profile, a page of TOML",
            )
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ProfileError(f"{path} cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:  # not UTF-8, not TOML, an endless integer
        raise ProfileError(f"{path} is not a TOML file: {problem}") from None


def with_sources(data: dict[str, Any]) -> dict[str, Any]:
    """Return the document with shared sources written out.

    Given:  a table of coefficients or a memory, with ``source``, ``kind`` and bare numbers.
    Result: each of those numbers as ``{ value, source, kind }``, and neither key in the table. The
            tables of ``kernels`` inherit from their precision unless they state their own.
    """
    filled = dict(data)
    if isinstance(data.get("memory"), list):
        filled["memory"] = [_fill(memory, {}) for memory in data["memory"]]
    if isinstance(data.get("runtime"), list):
        filled["runtime"] = [_fill_runtime(runtime) for runtime in data["runtime"]]
    return filled


def _fill_runtime(runtime: Any) -> Any:
    if not isinstance(runtime, dict) or not isinstance(runtime.get("precisions"), dict):
        return runtime
    precisions = {name: _fill(table, {}) for name, table in runtime["precisions"].items()}
    return {**runtime, "precisions": precisions}


def _fill(table: Any, inherited: Mapping[str, Any]) -> Any:
    if not isinstance(table, dict):
        return table
    origin = {**inherited, **{key: table[key] for key in _ORIGIN if key in table}}
    filled = {}
    for key, value in table.items():
        if key in _ORIGIN:
            continue
        if key == "kernels" and isinstance(value, dict):
            filled[key] = {name: _fill(kernel, origin) for name, kernel in value.items()}
        elif origin and _needs_source(key) and _is_number(value):
            filled[key] = {"value": value, **origin}
        else:
            filled[key] = value
    return filled


def _parse(file: str, data: dict[str, Any]) -> DeviceProfile:
    return from_builtins(DeviceProfile, data, what=f"device profile {file}", error=ProfileError)


def _problems(path: Path, data: dict[str, Any]) -> Iterator[ProfileError]:
    """Yield what is wrong: in single numbers, in the structure, between keys that do not agree."""
    refuse_newer(data, what=f"device profile {path.name}", error=ProfileError)
    numbers = {key: found for key, value in _numbers(data, "") if (found := _fault(key, value))}
    for fault, expected in numbers.values():
        yield ProfileError(f"{path.name}: {fault}", expected=expected)
    # A number that was named above is not named again for its structure.
    structure = [
        (where, what)
        for where, what in find_problems(DeviceProfile, data)
        if not any(f"{where}.".startswith(f"{key}.") for key in numbers)
    ]
    for where, what in structure:
        yield ProfileError(f"device profile {path.name} is malformed: {where}: {what}")
    if not structure and not numbers:
        yield from _consistency_problems(path, _parse(path.name, data))


def _numbers(data: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield what stands under each key of ``RANGES``, with its dotted place."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    for name, value in items:
        key = f"{where}.{name}".lstrip(".")
        if name in RANGES:
            yield key, value
        else:
            yield from _numbers(value, key)


def _fault(key: str, value: Any) -> tuple[str, str] | None:
    """Return what is wrong with a number (bare, sourceless, impossible) and what it should be."""
    limits = RANGES[key.rsplit(".", 1)[-1]]
    if _is_number(value) and limits.sourced:
        example = '{ value = ..., source = "...", kind = "datasheet" }'
        return f"{key} is the bare number {_short(value)}", f"{example}: where it comes from"
    source = value.get("source") if isinstance(value, dict) else None
    if isinstance(source, str) and not source.strip():
        return (
            f"{key} has an empty source",
            "the document, measurement or reasoning the number comes from",
        )
    number: Any = value.get("value") if isinstance(value, dict) else value
    if _is_number(number) and not limits.holds(number):
        between = f"between {limits.low:g} and {limits.high:g}"
        return f"{key} = {_short(number)} cannot be", f"{between}; {limits.hint}"
    return None


def _consistency_problems(path: Path, profile: DeviceProfile) -> Iterator[ProfileError]:
    """Yield what no single key is to blame for."""
    if profile.name != path.stem:
        yield ProfileError(
            f"{path.name} says name = {profile.name!r}",
            expected=f"the name of its file, {path.stem!r}",
        )
    least = _LEAST_RAM_BYTES[profile.kind]
    if profile.ram_bytes.value < least:
        yield ProfileError(
            f"{path.name}: ram_bytes = {profile.ram_bytes.value:g} is too little for a "
            f"{profile.kind}",
            expected=f"at least {least:g}; {RANGES['ram_bytes'].hint}",
        )
    ways = [(r.target, r.delegate, r.unit, r.threads) for r in profile.runtime]
    for way in sorted({way for way in ways if ways.count(way) > 1}):
        yield ProfileError(
            f"{path.name} states {' '.join(map(str, way))} thread(s) in two [[runtime]] tables",
            expected="one table for each target, delegate, unit and number of threads",
        )
    if not any({"fp32", "fp16"} & set(runtime.precisions) for runtime in profile.runtime[:1]):
        yield ProfileError(
            f"{path.name}: its first [[runtime]] lists no float precision",
            expected="fp32 or fp16 among its precisions, for the baseline",
        )


def _needs_source(key: str) -> bool:
    return key in RANGES and RANGES[key].sourced


def _short(number: float) -> str:
    try:
        return f"{number:g}"
    except OverflowError:
        return f"an integer of {len(str(number))} digits"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
