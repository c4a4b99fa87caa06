"""Keep converters and runtimes from writing over the command line's own output."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

_LOGGER = logging.getLogger(__name__)


@dataclass
class Output:
    """What was written to standard output and standard error, known once the block has ended."""

    text: str = ""


@contextmanager
def captured_output() -> Iterator[Output]:
    """Collect everything written to both streams inside the block, C++ libraries' lines included.

    The text goes to this module's logger at DEBUG level and to the yielded ``Output``. The file
    descriptors themselves are redirected, so other threads are silent for as long.
    """
    output = Output()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = (os.dup(1), os.dup(2))
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as sink:
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            with redirect_stdout(sink), redirect_stderr(sink):
                yield output
        finally:
            sink.flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            sink.seek(0)
            output.text = sink.read()
            if output.text:
                _LOGGER.debug("%s", output.text)
