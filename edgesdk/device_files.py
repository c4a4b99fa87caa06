"""Device profiles on disk: found by name or path, read as TOML, every number checked."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from edgesdk.device import DeviceKind, DeviceProfile
from edgesdk.document import from_builtins
from edgesdk.errors import ProfileError, UsageError, unknown_name

# A profile is a page of text; anything of this size is some other file.
_MAXIMUM_FILE_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class _Range:
    """The values a number can have at all, and the slip that a value outside usually is."""

    low: float
    high: float
    hint: str


_RATE = "give operations or bytes per second, not millions or billions of them"
_SECONDS = "give seconds, not milliseconds or microseconds"

# Physical limits with orders of magnitude to spare: they catch a wrong unit, not a bold claim.
_RANGES: Mapping[str, _Range] = {
    "clock_hz": _Range(low=1e6, high=1e11, hint="give Hz, not MHz or GHz"),
    "ram_bytes": _Range(low=1024, high=1e15, hint="give bytes, not KB, MB or GB"),
    "flash_bytes": _Range(low=4096, high=1e15, hint="give bytes, not KB, MB or GB"),
    "runtime_ram_bytes": _Range(low=0, high=1e12, hint="give bytes"),
    "runtime_flash_bytes": _Range(low=0, high=1e12, hint="give bytes"),
    "mac_per_s": _Range(low=1e4, high=1e17, hint=_RATE),
    "bytes_per_s": _Range(low=1e4, high=1e15, hint=_RATE),
    "op_overhead_s": _Range(low=0, high=0.1, hint=_SECONDS),
    "inference_overhead_s": _Range(low=0, high=10, hint=_SECONDS),
    "error_factor": _Range(low=1, high=100, hint="a factor of 1.5 means within 1/1.5 and 1.5"),
    "threads": _Range(low=1, high=4096, hint="a count of threads"),
    "channel_multiple": _Range(low=1, high=4096, hint="1 where any channel count runs alike"),
}
_LEAST_RAM_BYTES: Mapping[DeviceKind, float] = {
    "phone": 2**26,
    "embedded": 2**24,
    "computer": 2**28,
    "microcontroller": 1024,
}


def load_device(name: str) -> DeviceProfile:
    """Return the profile of a device, by its name or by ``path/to/profile.toml``.

    Names come from the profiles edgesdk brings and from those in the user's configuration folder
    (``profile_folders``); a name is looked up there and never becomes part of a path. Raises
    ``UsageError`` for an unknown name or a missing file, ``ProfileError`` for a bad profile.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"there is no device profile at {name}")
        return read_profile(path)
    files = _profile_files()
    if name not in files:
        raise UsageError(
            unknown_name("device", name, files, listing="'edgesdk devices list' shows them all"),
            details={"known": sorted(files)},
        )
    return read_profile(files[name])


def profile_names() -> tuple[str, ...]:
    """Return the names of all devices that have a profile, sorted."""
    return tuple(sorted(_profile_files()))


def profile_folders() -> tuple[Path, ...]:
    """Return the folders that hold profiles: what edgesdk brings, then the user's own."""
    return _packaged_folder(), user_config_path("edgesdk") / "device_profiles"


def read_profile(path: Path) -> DeviceProfile:
    """Return the profile in a TOML file.

    Raises ``ProfileError`` for text that is not TOML, an unknown or missing key, a number without
    source and kind, a value that cannot be (negative, or in another unit than the key says), and a
    ``name`` that is not the file's.
    """
    data = _read_toml(path)
    for key, number in _bare_numbers(data, ""):
        raise ProfileError(
            f"{path.name}: {key} is the bare number {number}",
            expected='{ value = ..., source = "...", kind = "datasheet" }: where it comes from',
        )
    profile = from_builtins(
        DeviceProfile, data, what=f"device profile {path.name}", error=ProfileError
    )
    if profile.name != path.stem:
        raise ProfileError(
            f"{path.name} says name = {profile.name!r}",
            expected=f"the name of its file, {path.stem!r}",
        )
    for key, quantity in _quantities(data, ""):
        _check_quantity(path.name, key, quantity)
    for runtime in data["runtime"]:
        for key in ("threads", "channel_multiple"):
            _check_range(path.name, f"runtime.{key}", runtime[key])
    _check_ram(path.name, profile)
    return profile


def _packaged_folder() -> Path:
    """Return the profiles of a wheel (inside the package) or of a checkout (beside it)."""
    package = Path(__file__).parent
    for folder in (package / "device_profiles", package.parent / "device_profiles"):
        if folder.is_dir():
            return folder
    raise ProfileError(
        f"no device profiles lie in or beside {package}",
        next_step="install edgesdk again; this installation is incomplete",
    )


def _profile_files() -> dict[str, Path]:
    """Return the profile file of each device name; two of one name are an error."""
    files: dict[str, Path] = {}
    for folder in profile_folders():
        for path in sorted(folder.glob("*.toml")):
            if path.stem in files:
                raise ProfileError(
                    f"two device profiles are named {path.stem!r}: {files[path.stem]} and {path}",
                    next_step="rename one of them, the file and its name field",
                )
            files[path.stem] = path
    return files


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAXIMUM_FILE_BYTES:
            raise ProfileError(
                f"{path} is larger than {_MAXIMUM_FILE_BYTES} bytes",
                expected="a device profile, a page of TOML",
            )
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ProfileError(f"{path} cannot be read: {problem.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as problem:
        raise ProfileError(f"{path} is not a TOML file: {problem}") from None


def _bare_numbers(data: Any, where: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers that stand where a value with its source is due."""
    for key, value in _items(data, where):
        leaf = key.rsplit(".", 1)[-1]
        needs_source = leaf in _RANGES and leaf not in ("threads", "channel_multiple")
        if needs_source and isinstance(value, int | float):
            yield key, value
        yield from _bare_numbers(value, key)


def _quantities(data: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every ``{ value, source, kind }`` with its dotted key."""
    for key, value in _items(data, where):
        if isinstance(value, dict) and "value" in value:
            yield key, value
        else:
            yield from _quantities(value, key)


def _items(data: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield (f"{where}.{key}" if where else key), value
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield f"{where}[{index}]", value


def _check_quantity(file: str, key: str, quantity: Mapping[str, Any]) -> None:
    if not quantity["source"].strip():
        raise ProfileError(
            f"{file}: {key} has an empty source",
            expected="the document, measurement or reasoning the number comes from",
        )
    _check_range(file, key, quantity["value"])


def _check_range(file: str, key: str, value: float) -> None:
    limits = _RANGES[key.rsplit(".", 1)[-1]]
    if not math.isfinite(value) or not limits.low <= value <= limits.high:
        raise ProfileError(
            f"{file}: {key} = {value:g} cannot be",
            expected=f"between {limits.low:g} and {limits.high:g}; {limits.hint}",
        )


def _check_ram(file: str, profile: DeviceProfile) -> None:
    least = _LEAST_RAM_BYTES[profile.kind]
    if profile.ram_bytes.value < least:
        raise ProfileError(
            f"{file}: ram_bytes = {profile.ram_bytes.value:g} is too little for a {profile.kind}",
            expected=f"at least {least:g}; {_RANGES['ram_bytes'].hint}",
        )
