"""The local store: every measurement that was made or imported, kept once, in SQLite."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgesdk.document import to_json
from edgesdk.errors import MeasurementError, OutputError, UsageError
from edgesdk.measurement import Measurement
from edgesdk.measurement_file import parse_measurement

_TABLE = """
CREATE TABLE IF NOT EXISTS measurements (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    document TEXT NOT NULL UNIQUE,
    label TEXT NOT NULL
)
"""
# What PRAGMA user_version says; another one is another edgesdk's.
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A measurement in the store: its number, and the task and precision it was stored with."""

    number: int
    label: str
    measurement: Measurement


def default_store() -> Store:
    """Return the store in ``$EDGESDK_STORE``, or in the user's data folder."""
    chosen = os.environ.get("EDGESDK_STORE")
    folder = Path(chosen) if chosen else platformdirs.user_data_path("edgesdk")
    return Store(folder / "measurements.sqlite3")


class Store:
    """Measurements in one SQLite file; equal ones are kept once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, measurement: Measurement, *, label: str) -> int:
        """Keep a measurement and return its number, the old one where it is there already."""
        document = to_json(measurement)
        with self._open() as database:
            database.execute(
                "INSERT OR IGNORE INTO measurements (document, label) VALUES (?, ?)",
                (document, label),
            )
            row = database.execute(
                "SELECT number FROM measurements WHERE document = ?", (document,)
            ).fetchone()
            return int(row[0])

    def all(self) -> tuple[Stored, ...]:
        """Return every measurement, the oldest first; none where nothing was stored yet."""
        if not self.path.exists():
            return ()
        with self._open() as database:
            rows = database.execute(
                "SELECT number, label, document FROM measurements ORDER BY number"
            ).fetchall()
        return tuple(self._stored(*row) for row in rows)

    def get(self, number: int) -> Stored:
        """Return the measurement of that number; ``UsageError`` where there is none."""
        with self._open() as database:
            row = database.execute(
                "SELECT number, label, document FROM measurements WHERE number = ?", (number,)
            ).fetchone()
        if row is None:
            raise UsageError(
                f"there is no measurement {number}", next_step="see 'edgesdk measurements list'"
            )
        return self._stored(*row)

    def _stored(self, number: int, label: str, document: str) -> Stored:
        what = f"measurement {number} in {self.path}"
        measurement = parse_measurement(document.encode(), what=what)
        return Stored(number=number, label=label, measurement=measurement)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Yield the database inside one transaction; its errors name the file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as database, database:
                (version,) = database.execute("PRAGMA user_version").fetchone()
                if version > _VERSION:
                    raise MeasurementError(
                        f"{self.path} is from a newer edgesdk", next_step="upgrade edgesdk"
                    )
                if version < _VERSION:  # new: what cannot be written may still be read
                    database.execute(_TABLE)
                    database.execute(f"PRAGMA user_version = {_VERSION}")
                yield database
        except sqlite3.DatabaseError as problem:
            if getattr(problem, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise OutputError(
                    f"there is no space left for the store {self.path}",
                    next_step="free some, or set EDGESDK_STORE to a folder that has it",
                ) from problem
            raise MeasurementError(
                f"the store {self.path} cannot be used: {problem}",
                next_step="move it away; a new one is made",
            ) from problem
        except (PermissionError, FileExistsError, NotADirectoryError) as problem:
            raise OutputError(
                f"the store {self.path} cannot be written: {problem.strerror}",
                next_step="set EDGESDK_STORE to a folder that can be",
            ) from problem
