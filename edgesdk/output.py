"""The output folder: checked before work starts, written in one rename at the end."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgesdk.errors import OutputError


def check_output(out: Path) -> Path:
    """Return the absolute output path; ``OutputError`` if it exists or cannot be created."""
    out = out.absolute()
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        parent = next(folder for folder in out.parents if os.path.lexists(folder))
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            return out
        found = f"the output {out} cannot be written: {parent} is not a writable folder"
        raise OutputError(found) from None
    except OSError as problem:
        raise OutputError(f"the output {out} cannot be written: {problem.strerror}") from None
    raise OutputError(
        f"the output {out} exists already",
        expected="a folder that is not there yet; nothing is ever overwritten",
        next_step="choose another -o, or remove it",
    )


@contextmanager
def writing(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` when the block ends well, and vanishes when not.

    The folder lies beside ``out``, so the rename is one step on one disk. A full or failing disk
    is an ``OutputError``.
    """
    with _staged(out) as staged:
        staged.mkdir()
        yield staged


def write_file(path: Path, text: str) -> None:
    """Write a new text file in one rename; ``OutputError`` if it exists or the disk is full."""
    check_output(path)
    with _staged(path) as staged:
        staged.write_text(text, encoding="utf-8")


def replace_file(path: Path, text: str) -> None:
    """Write a text file in one rename, over an older one of the same name if there is one.

    Only for what edgesdk wrote itself and may write again; ``OutputError`` where it cannot.
    """
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".edgesdk.") as temporary:
                staged = Path(temporary) / path.name
                staged.write_text(text, encoding="utf-8")
                staged.replace(path)
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as problem:
        found = f"{path} cannot be written: {problem.strerror}"
        raise OutputError(found) from problem


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """Yield a path that is renamed to ``out`` when the block ends well; else nothing stays."""
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        with disk_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=".edgesdk.") as temporary:
                staged = Path(temporary) / out.name
                yield staged
                check_output(out)
                staged.rename(out)
    except BaseException as problem:
        for folder in made:
            with suppress(OSError):  # not empty: someone else writes there too
                folder.rmdir()
        if isinstance(problem, PermissionError | FileNotFoundError | NotADirectoryError):
            found = f"the output {out} cannot be written: {problem.strerror}"
            raise OutputError(found) from problem
        raise


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn a full disk into an ``OutputError`` that says how much is left."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        existing = next(folder for folder in (where, *where.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        raise OutputError(
            f"writing to {where} failed: {problem.strerror} ({free / 1e6:.0f} MB free)",
            next_step="free some space and run the same command again; finished steps are kept",
        ) from problem
