"""Device profiles on disk: found by name or path, packaged ones and the user's own."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_config_path

from edgesdk.device import DeviceProfile
from edgesdk.device_document import read_profile, read_toml
from edgesdk.errors import ProfileError, UsageError, unknown_name


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


def find_profiles() -> tuple[dict[str, Path], tuple[tuple[Path, ProfileError], ...]]:
    """Return the profile file of each name, and each file whose name is taken, with the error.

    One exception: a user's profile that says ``calibrated_from`` its own name replaces the
    packaged one. It is that device, corrected by measurements.
    """
    files: dict[str, Path] = {}
    clashes = []
    for folder in profile_folders():
        for path in sorted(folder.glob("*.toml")):
            if path.stem in files and not _replaces(path):
                clashes.append((path, _clash(files[path.stem], path)))
            else:
                files[path.stem] = path
    return files, tuple(clashes)


def _replaces(path: Path) -> bool:
    try:
        return read_toml(path).get("calibrated_from") == path.stem
    except ProfileError:
        return False  # what cannot be read cannot say that it replaces anything


def _clash(first: Path, second: Path) -> ProfileError:
    return ProfileError(
        f"two device profiles are named {second.stem!r}: {first} and {second}",
        next_step="rename one of them, the file and its name field; only a profile with "
        f"calibrated_from = {second.stem!r} may replace the packaged one",
    )


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
    """Return the profile file of each device name; ``ProfileError`` where two have one name."""
    files, clashes = find_profiles()
    for _, clash in clashes:
        raise clash
    return files
