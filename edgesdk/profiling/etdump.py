"""Read an ETDump, the trace that ExecuTorch writes: the whole inference and its operators."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import MeasurementError, TargetUnavailable
from edgesdk.profiling.agent.operators import leaf_events

# A size, the root's place, then the name that flatbuffers give the format.
_IDENTIFIER = slice(8, 12)
_NAME = b"ED00"
LIMIT_BYTES = 64_000_000
"""A thousand inferences of a network of three hundred operators stay below it."""


@dataclass(frozen=True, kw_only=True)
class Dumped:
    """Milliseconds in a dump: loading (None: not told), each inference, each operator in each.

    ``operators`` are the name, whether a delegate ran it, and its times, none inside another.
    """

    load_ms: float | None
    inferences_ms: tuple[float, ...]
    operators: tuple[tuple[str, bool, tuple[float, ...]], ...]


def is_dump(content: bytes) -> bool:
    """Return whether the bytes begin as an ETDump does."""
    return content[_IDENTIFIER] == _NAME


def read_dump(content: bytes, *, what: str) -> Dumped:
    """Return the times in a dump; ``MeasurementError`` where it is broken or holds no inference.

    ExecuTorch's own Inspector reads it (``TargetUnavailable`` without it).
    """
    if len(content) > LIMIT_BYTES:
        raise MeasurementError(f"{what} is larger than {LIMIT_BYTES / 1e6:.0f} MB")
    blocks = _inspect(content, what)
    events = [event for block in blocks if block.name == "Execute" for event in block.events]
    whole = [event for event in events if event.name == "Method::execute" and event.perf_data]
    if len(whole) != 1:
        raise MeasurementError(
            f"{what} holds {len(whole)} methods that were executed", expected="one, 'forward'"
        )
    inferences = tuple(map(float, whole[0].perf_data.raw))
    operators = leaf_events(blocks)
    if any(len(times) != len(inferences) for _, _, times in operators):
        raise MeasurementError(f"{what} does not hold every operator of every inference")
    if min(inferences) < 0:
        raise MeasurementError(f"{what}: the clock went backwards")
    return Dumped(
        load_ms=_load_ms(blocks),
        inferences_ms=inferences,
        operators=tuple((name, delegated, tuple(times)) for name, delegated, times in operators),
    )


def _inspect(content: bytes, what: str) -> Sequence[Any]:
    try:
        from executorch.devtools import Inspector
    except ImportError:
        raise TargetUnavailable(
            "reading an ETDump takes ExecuTorch's developer tools, which are not installed",
            next_step="pip install 'edgesdk[executorch]'",
        ) from None
    with tempfile.TemporaryDirectory(prefix="edgesdk.") as folder:
        path = Path(folder) / "dump.etdp"
        path.write_bytes(content)
        try:
            blocks: Sequence[Any] = Inspector(etdump_path=str(path)).event_blocks
        except Exception as problem:  # whatever broken bytes make it raise
            raise MeasurementError(
                f"{what} cannot be read as an ETDump: {type(problem).__name__}",
                next_step="copy it again; the version of ExecuTorch that wrote it may be another",
            ) from problem
    return blocks


def _load_ms(blocks: Sequence[Any]) -> float | None:
    loaded = [
        float(event.perf_data.raw[0])
        for block in blocks
        for event in block.events
        if event.name == "Program::load_method" and event.perf_data
    ]
    return loaded[0] if len(loaded) == 1 else None
