"""Run Vela, Arm's compiler for the Ethos-U, on a ``.tflite`` file, and read what it says of it."""

from __future__ import annotations

import csv
import io
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgesdk.device import Vela
from edgesdk.errors import EdgeSDKError, ProfileError, UnsupportedModel
from edgesdk_tflite.packages import require_vela

_CONFIGURATIONS = "Arm/vela.ini"  # of the package, not of the working folder
_TIMEOUT_S = 600.0
# What Vela writes is read back as foreign data: no more of it than can be right.
_MOST_FILE_BYTES = 1 << 31
_MOST_TEXT_BYTES = 1 << 20
_INPUT = "network.tflite"
_OUTPUT = "network_vela.tflite"


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What Vela made of a file: its content, and the cycles it estimates at a clock.

    Operators left to the CPU take none of ``cycles``. ``sram_bytes`` is what Vela says that tensors
    take in SRAM.
    """

    content: bytes
    cycles: float
    clock_hz: float
    sram_bytes: float


def compile_for_ethos_u(path: Path, options: Vela) -> Compiled:
    """Return a ``.tflite`` file compiled by Vela, in a process of its own.

    Raises ``ProfileError`` for a configuration that Vela does not know, ``UnsupportedModel`` where
    it refuses the file, crashes or does not end, and ``TargetUnavailable`` without Vela.
    """
    require_vela()
    with tempfile.TemporaryDirectory(prefix="edgesdk.") as name:
        folder = Path(name)
        (folder / _INPUT).write_bytes(path.read_bytes())
        said = _run(folder, options)
        summaries = list(folder.glob("network_summary_*.csv"))
        if len(summaries) != 1 or not (folder / _OUTPUT).is_file():
            raise _refused("wrote no compiled file", said)
        content = _read(folder / _OUTPUT, _MOST_FILE_BYTES)
        summary = _summary(_read(summaries[0], _MOST_TEXT_BYTES).decode(errors="replace"))
    return Compiled(
        content=content,
        cycles=_number(summary, "cycles_total"),
        clock_hz=_number(summary, "core_clock"),
        sram_bytes=1024 * _number(summary, "sram_memory_used"),
    )


def _run(folder: Path, options: Vela) -> str:
    """Run Vela in a folder and return what it printed."""
    words = [
        f"--accelerator-config={options.accelerator}",
        f"--config={_CONFIGURATIONS}",
        f"--system-config={options.system_config}",
        f"--memory-mode={options.memory_mode}",
        f"--arena-cache-size={options.arena_bytes.value:.0f}",
        "--output-dir=.",
        _INPUT,
    ]
    with tempfile.TemporaryFile() as output:
        try:
            code = subprocess.run(  # noqa: S603 - a list of words, no shell
                [sys.executable, "-P", "-m", "ethosu.vela", *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise _refused(f"did not end within {_TIMEOUT_S:g} s", "") from None
        output.seek(0)
        said = output.read(_MOST_TEXT_BYTES).decode(errors="replace")
    if code < 0:
        raise _refused(f"crashed with {signal.Signals(-code).name}", said)
    if code or "CliOptionError" in said:
        raise _refused("failed", said, options)
    return said


def _refused(how: str, said: str, options: Vela | None = None) -> EdgeSDKError:
    """Return the error for a run that gave nothing, with the last line that Vela said."""
    lines = [line for line in said.strip().splitlines() if line.strip()]
    last = f": {lines[-1].strip()}" if lines else ""
    if options is not None and "CliOptionError" in last:
        return ProfileError(
            f"Vela does not know the profile's configuration{last}",
            expected=f"system_config and memory_mode as sections of Vela's {_CONFIGURATIONS}",
        )
    return UnsupportedModel(
        f"Vela {how} on this network{last}",
        expected="a network that Vela compiles",
        next_step="compile it for a device without an Ethos-U to see whether the file itself runs",
    )


def _read(path: Path, most_bytes: int) -> bytes:
    if path.stat().st_size > most_bytes:
        raise _refused(f"wrote a {path.suffix} file of {path.stat().st_size} bytes", "")
    return path.read_bytes()


def _summary(text: str) -> Mapping[str, str]:
    rows = list(csv.DictReader(io.StringIO(text)))
    if len(rows) != 1:
        raise _refused(f"wrote a summary of {len(rows)} rows", "")
    return rows[0]


def _number(summary: Mapping[str, str], column: str) -> float:
    try:
        number = float(summary.get(column) or "nan")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise _refused(f"wrote a summary whose {column} is {summary.get(column)!r}", "")
    return number
