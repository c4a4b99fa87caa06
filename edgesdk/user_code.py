"""Running the user's own code: what it raises becomes a TaskError that says where."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from edgesdk.errors import EdgeSDKError, TaskError

_LIBRARIES = tuple(
    {"<frozen", str(Path(__file__).parent) + os.sep}
    | {sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")}
)


@contextmanager
def user_code(what: str, *, file: Path | None = None) -> Iterator[None]:
    """Run the block; an exception in it becomes ``TaskError``: what ran, what it raised, where.

    The line is the innermost one in ``file`` where a file is given, else the innermost one
    outside edgesdk, the standard library and installed packages. edgesdk's own errors pass.
    """
    try:
        yield
    except EdgeSDKError:
        raise
    except (Exception, SystemExit) as problem:
        text = f"{type(problem).__name__}: {problem}".rstrip(": ")
        where = _line(problem.__traceback__, file)
        if isinstance(problem, SyntaxError) and problem.filename:
            text = f"{type(problem).__name__}: {problem.msg}"
            where = f" ({problem.filename}, line {problem.lineno})"
        raise TaskError(f"{what} raised {text}{where}") from problem


def _line(trace: TracebackType | None, file: Path | None) -> str:
    """Return `` (file, line N)`` for the user's innermost frame, empty when there is none."""
    frames = traceback.extract_tb(trace)
    if file is not None:
        theirs = [frame for frame in frames if Path(frame.filename) == file]
    else:
        theirs = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    return f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
