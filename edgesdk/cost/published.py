"""Published measurements on disk: a table of latencies, and the graphs of what was measured."""

from __future__ import annotations

import csv
import gzip
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import EdgeSDKError, MeasurementError, ProfileError
from edgesdk.graph import OpGraph
from edgesdk.model_file import read_graph
from edgesdk.trace import graph_from_json

COLUMNS = ("device", "runtime", "precision", "model", "latency_ms")
_ENERGY = "energy_uj"
_MAXIMUM_TABLE_BYTES = 100_000_000
_MAXIMUM_GRAPH_BYTES = 200_000_000  # uncompressed; the largest of a thousand operators has 1 MB


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement as published; ``energy_j`` is None where only time was measured."""

    device: str
    runtime: str
    precision: str
    model: str
    seconds: float
    energy_j: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """Rows that a fit leaves out, and why; an empty ``runtime`` or ``precision`` means any."""

    model: str
    reason: str
    runtime: str = ""
    precision: str = ""

    def is_about(self, row: Row) -> bool:
        """Return whether the row is one of them."""
        return (
            row.model == self.model
            and self.runtime in ("", row.runtime)
            and self.precision in ("", row.precision)
        )


def read_rows(path: Path) -> tuple[Row, ...]:
    """Return the measurements in a CSV file with the columns ``COLUMNS``, and others if it likes.

    ``energy_uj`` and ``source`` are read where they exist. Raises ``MeasurementError`` for a file
    that is not such a table, a latency in another unit, and one that is empty or not positive.
    """
    try:
        if path.stat().st_size > _MAXIMUM_TABLE_BYTES:
            raise MeasurementError(f"{path} is larger than {_MAXIMUM_TABLE_BYTES} bytes")
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            _check_columns(path, reader.fieldnames or [])
            return tuple(_row(path, reader.line_num, cells) for cells in reader)
    except OSError as problem:
        raise MeasurementError(f"{path} cannot be read: {problem.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as problem:
        raise MeasurementError(f"{path} is not a CSV file in UTF-8: {problem}") from None


def read_suspects(path: Path) -> tuple[Suspect, ...]:
    """Return the suspect rows in a TOML file: ``[[suspect]]`` tables with model and reason.

    Raises ``MeasurementError`` for a file that is not one, and for a suspect without a reason.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("suspect", [])
        suspects = tuple(Suspect(**table) for table in tables)
    except OSError as problem:
        raise MeasurementError(f"{path} cannot be read: {problem.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as problem:
        raise MeasurementError(
            f"{path} does not list suspect rows: {problem}",
            expected="[[suspect]] tables with model, reason and, optionally, runtime and precision",
        ) from None
    for suspect in suspects:
        if not suspect.reason.strip():
            raise MeasurementError(f"{path}: {suspect.model} is left out without a reason")
    return suspects


def read_graphs(folders: Sequence[Path]) -> tuple[dict[str, OpGraph], dict[str, str]]:
    """Return the graph of each model in the folders, and why each other file has none.

    Files are ``MODEL.json.gz`` (saved ``torch.export`` graphs) and ``MODEL.tflite``. Raises
    ``MeasurementError`` for a folder that is not there.
    """
    graphs: dict[str, OpGraph] = {}
    problems: dict[str, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise MeasurementError(
                f"there is no folder {folder}", expected="a folder with a graph for each model"
            )
        for path in sorted([*folder.glob("*.json.gz"), *folder.glob("*.tflite")]):
            name = path.name.removesuffix(".json.gz").removesuffix(".tflite")
            try:
                graphs[name] = _graph(path, name)
            except EdgeSDKError as problem:
                problems[name] = str(problem)
    return graphs, problems


def _check_columns(path: Path, found: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in found]
    if not missing:
        return
    other = [name for name in found if name.startswith("latency_")]
    if missing == ["latency_ms"] and other:
        raise MeasurementError(
            f"{path} has latencies in a unit that is not known here: {', '.join(other)}",
            expected="a column latency_ms, in milliseconds",
        )
    raise MeasurementError(
        f"{path} lacks the column(s) {', '.join(missing)}",
        expected=f"a CSV file with a header and the columns {', '.join(COLUMNS)}",
    )


def _row(path: Path, line: int, cells: Mapping[str, str | None]) -> Row:
    texts = {name: (cells.get(name) or "").strip() for name in (*COLUMNS, _ENERGY, "source")}
    for name in ("device", "runtime", "precision", "model"):
        if not texts[name]:
            raise MeasurementError(f"{path}, line {line}: {name} is empty")
    energy = texts[_ENERGY]
    return Row(
        device=texts["device"],
        runtime=texts["runtime"],
        precision=texts["precision"],
        model=texts["model"],
        seconds=1e-3 * _positive(path, line, "latency_ms", texts["latency_ms"]),
        energy_j=1e-6 * _positive(path, line, _ENERGY, energy) if energy else None,
        source=texts["source"],
    )


def _positive(path: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise MeasurementError(
            f"{path}, line {line}: {name} is {text!r}", expected="a positive number without a unit"
        )
    return value


def _graph(path: Path, name: str) -> OpGraph:
    if path.suffix == ".tflite":
        return read_graph(path)
    try:
        with gzip.open(path) as stream:
            content = stream.read(_MAXIMUM_GRAPH_BYTES + 1)
        if len(content) > _MAXIMUM_GRAPH_BYTES:
            raise ProfileError(f"{path} holds more than {_MAXIMUM_GRAPH_BYTES} bytes")
        return graph_from_json(json.loads(content), name=name)
    except (OSError, EOFError, ValueError, RecursionError) as problem:
        raise ProfileError(f"{path} is not a saved graph: {problem}") from None
