"""The store: kept once, in order, and honest about what it cannot read."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measuring import EXAMPLE

from edgesdk.errors import MeasurementError, OutputError, UsageError
from edgesdk.profiling.store import Store, default_store


def test_what_is_added_is_there_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "m.sqlite3")
    other = replace(EXAMPLE, p50_ms=2.1)
    assert (store.add(EXAMPLE, label="a"), store.add(other, label="b")) == (1, 2)
    assert [(item.number, item.label, item.measurement) for item in store.all()] == [
        (1, "a", EXAMPLE),
        (2, "b", other),
    ]
    assert store.get(2).measurement == other


def test_the_same_measurement_is_kept_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "m.sqlite3")
    assert store.add(EXAMPLE, label="a") == store.add(EXAMPLE, label="a again") == 1
    assert len(store.all()) == 1


def test_a_number_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no measurement 7"):
        Store(tmp_path / "m.sqlite3").get(7)


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite3"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(MeasurementError, match="cannot be used"):
        Store(path).all()


def test_a_newer_store_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite3"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(MeasurementError, match="newer edgesdk"):
        Store(path).add(EXAMPLE, label="a")


def test_a_forged_row_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "m.sqlite3")
    store.add(EXAMPLE, label="a")
    with sqlite3.connect(store.path) as database:
        database.execute("UPDATE measurements SET document = '{\"p50_ms\": -1}'")
    with pytest.raises(MeasurementError, match="measurement 1 in"):
        store.all()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="EDGESDK_STORE"):
        Store(tmp_path / "file" / "m.sqlite3").add(EXAMPLE, label="a")


def test_reading_makes_and_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "m.sqlite3")
    assert store.all() == ()
    assert not store.path.parent.exists()
    store.add(EXAMPLE, label="a")
    content = store.path.read_bytes()
    assert len(store.all()) == 1
    assert store.path.read_bytes() == content


def test_the_environment_names_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESDK_STORE", str(tmp_path))
    assert default_store().path == tmp_path / "measurements.sqlite3"


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "m.sqlite3")
    store.add(EXAMPLE, label="a")
    connect = sqlite3.connect

    def full(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*arguments, **options)
        database.execute("PRAGMA max_page_count = 1")  # sqlite keeps to what there is already
        return database

    monkeypatch.setattr("edgesdk.profiling.store.sqlite3.connect", full)
    with pytest.raises(OutputError, match="no space left"):
        store.add(replace(EXAMPLE, p50_ms=2.05), label="x" * 100_000)
    monkeypatch.undo()
    assert len(store.all()) == 1
