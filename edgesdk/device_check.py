"""Device profiles checked: every problem of every file, not only the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesdk.device import DeviceProfile
from edgesdk.device_document import profile_problems, read_profile
from edgesdk.device_files import find_profiles
from edgesdk.errors import EdgeSDKError, ProfileError, UsageError, unknown_name
from edgesdk.target import find_target, target_names


@dataclass(frozen=True, kw_only=True)
class CheckedProfile:
    """A profile's file and what is wrong with it; without problems it is good."""

    path: Path
    problems: tuple[EdgeSDKError, ...]


def check_profiles(names: Sequence[str] = ()) -> tuple[CheckedProfile, ...]:
    """Return every problem of the named profiles (names or ``.toml`` paths), of all without names.

    Two files of one name are a problem of the second. Raises ``UsageError`` for an unknown name.
    """
    files, clashes = find_profiles()
    paths = [_path(name, files) for name in names] or list(files.values())
    checked = [CheckedProfile(path=path, problems=_problems(path)) for path in paths]
    if not names:
        checked += [CheckedProfile(path=path, problems=(clash,)) for path, clash in clashes]
    return tuple(checked)


def _path(name: str, files: dict[str, Path]) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    if name not in files:
        listing = "'edgesdk devices list' shows them all; a file is named by its path"
        raise UsageError(unknown_name("device", name, files, listing=listing))
    return files[name]


def _problems(path: Path) -> tuple[EdgeSDKError, ...]:
    problems = profile_problems(path)
    return problems or _target_problems(path.name, read_profile(path))


def _target_problems(file: str, profile: DeviceProfile) -> tuple[EdgeSDKError, ...]:
    """Return what the installed targets have against their runtimes; others cannot be asked."""
    found: list[EdgeSDKError] = []
    for runtime in profile.runtime:
        if runtime.target not in target_names():
            continue
        try:
            capability = find_target(runtime.target).capability(runtime)
            if runtime.float_scheme not in capability.schemes:
                reason = capability.refused[runtime.float_scheme]
                found.append(
                    ProfileError(
                        f"{file}: target {runtime.target} emits no {runtime.float_scheme} for its "
                        f"{runtime.runtime} runtime: {reason}",
                        expected="a float precision that it emits, for the baseline",
                    )
                )
        except ProfileError as problem:
            found.append(ProfileError(f"{file}: {problem.found}", expected=problem.expected))
    return tuple(found)
