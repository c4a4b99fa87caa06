"""The toolchain: which packages Core ML emission needs, and how coremltools is kept quiet."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from edgesdk import target
from edgesdk.target import Toolchain

_PROVEN = (
    ("coremltools", "9.0", "converts to an ML program and reads it back"),
    ("torchao", "0.18.0", "calibrates and quantizes to int8"),
    ("executorch", "1.5.1", "has the quantizer that chooses what becomes int8"),
)


def find_toolchain() -> Toolchain:
    """Return which packages are here, with the command that installs the missing ones."""
    return Toolchain.of("coreml", _PROVEN, "pip install 'edgesdk[coreml]'")


def import_coremltools() -> Any:
    """Return the coremltools module; ``TargetUnavailable`` if the toolchain is not complete."""
    target.require(find_toolchain())
    with quiet():
        import coremltools
    return coremltools


@contextmanager
def quiet() -> Iterator[None]:
    """Keep coremltools' progress bars, prints and warnings off both streams; errors still raise.

    On Linux it warns at every import that Core ML's own libraries are missing, which is expected,
    and that versions of torch and scikit-learn later than itself are untested.
    """
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
