"""The step cache: results kept under the hash of their inputs, so a killed run resumes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from edgesdk.artifact import sha256_of
from edgesdk.document import read_json, to_builtins, to_json
from edgesdk.errors import ArtifactError, OutputError

_SEAL = "seal.json"
_CONTENT = "content"
_DOCUMENT = "document.json"

T = TypeVar("T")


def default_root() -> Path:
    """Return ``$EDGESDK_CACHE``, or edgesdk's folder in the user's cache directory."""
    chosen = os.environ.get("EDGESDK_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("edgesdk")


def key_of(*parts: Any) -> str:
    """Return a stable SHA-256 over JSON-ready values and frozen dataclasses."""
    text = json.dumps(
        [_plain(part) for part in parts], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(part: Any) -> Any:
    return part if isinstance(part, str | int | float | bool | None) else to_builtins(part)


class Cache:
    """Folders under ``root/<step>/<key>``, whole or absent, sealed by a hash."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, step: str, key: str, build: Callable[[Path], None]) -> Path:
        """Return the folder for ``key``; when absent or damaged ``build`` fills an empty one.

        The folder appears in one rename after ``build`` returned, so an interrupted build leaves
        nothing that could be mistaken for a result.
        """
        home = self.root / step / key
        if self._is_whole(home):
            return home / _CONTENT
        self._make(home.parent)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".building-") as temporary:
            built = Path(temporary) / key
            content = built / _CONTENT
            content.mkdir(parents=True)
            build(content)
            (built / _SEAL).write_text(json.dumps({"sha256": sha256_of(content)}))
            self._publish(built, home)
        return home / _CONTENT

    def document(self, step: str, key: str, kind: type[T], build: Callable[[], T]) -> T:
        """Return the ``kind`` kept for ``key``; ``build`` makes it when absent or of another form.

        A document that other code wrote, before a field came or went, is made anew.
        """

        def write(folder: Path) -> None:
            (folder / _DOCUMENT).write_text(to_json(build()), encoding="utf-8")

        kept = self.folder(step, key, write)
        try:
            return read_json(kind, kept / _DOCUMENT)
        except ArtifactError:
            shutil.rmtree(kept.parent)
        return read_json(kind, self.folder(step, key, write) / _DOCUMENT)

    def has(self, step: str, key: str) -> bool:
        """Return whether an undamaged result is there."""
        return self._is_whole(self.root / step / key)

    def scratch(self, step: str, key: str) -> Path:
        """Return a folder that survives interruption, for checkpoints of a step in progress."""
        path = self.root / "scratch" / step / key
        self._make(path)
        return path

    def drop_scratch(self, step: str, key: str) -> None:
        """Remove a step's checkpoints once its result is in the cache."""
        shutil.rmtree(self.root / "scratch" / step / key, ignore_errors=True)

    def _publish(self, built: Path, home: Path) -> None:
        """Move a finished folder into place; another builder that was faster wins.

        What lies there is removed only now and only if it is damaged: a whole result may be in
        use by another process.
        """
        try:
            built.rename(home)
        except OSError:
            if self._is_whole(home):
                return
            shutil.rmtree(home, ignore_errors=True)
            built.rename(home)

    def _make(self, folder: Path) -> None:
        """Create a folder under the root; ``OutputError`` where the cache cannot be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except (FileExistsError, NotADirectoryError, PermissionError) as problem:
            raise OutputError(
                f"the cache {self.root} cannot be written: {problem.strerror}",
                next_step="set EDGESDK_CACHE to a folder that can be",
            ) from problem

    @staticmethod
    def _is_whole(home: Path) -> bool:
        try:
            seal = json.loads((home / _SEAL).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(seal == {"sha256": sha256_of(home / _CONTENT)})
