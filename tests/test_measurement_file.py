"""Measurements from outside: read as they were written, refused with a reason where they cannot be.

What ``document`` does for every file (truncation, wrong types) is tested there.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import EXAMPLE, measurements

from edgesdk.document import to_builtins, to_json
from edgesdk.errors import MeasurementError
from edgesdk.measurement import Measurement
from edgesdk.measurement_file import (
    LIMIT_BYTES,
    measurement_schema,
    parse_measurement,
    read_measurement,
)

ROOT = Path(__file__).parents[1]
WRITTEN = ROOT / "docs/reference/measurement.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(measurement_schema())


def changed(place: str, value: Any) -> dict[str, Any]:
    """Return the example as JSON with one value changed; ``place`` is a path with dots."""
    document: dict[str, Any] = to_builtins(EXAMPLE)
    *parents, last = place.split(".")
    here: Any = document
    for key in parents:
        here = here[int(key)] if isinstance(here, list) else here[key]
    here[int(last) if isinstance(here, list) else last] = value
    return document


def parsed(document: Any) -> Measurement:
    return parse_measurement(json.dumps(document).encode(), what="m.json")


def test_the_written_schema_is_current() -> None:
    jsonschema.Draft202012Validator.check_schema(measurement_schema())
    assert json.loads(WRITTEN.read_text(encoding="utf-8")) == measurement_schema(), (
        f"run: edgesdk measurements schema > {WRITTEN.relative_to(ROOT)}"
    )


@given(measurements())
@settings(max_examples=30)
def test_what_is_written_follows_the_schema_and_reads_back(measurement: Measurement) -> None:
    VALIDATOR.validate(to_builtins(measurement))
    assert parse_measurement(to_json(measurement).encode(), what="m") == measurement


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(to_json(EXAMPLE), encoding="utf-8")
    assert read_measurement(path) == EXAMPLE


def test_what_was_not_told_may_be_left_out() -> None:
    document = {key: value for key, value in to_builtins(EXAMPLE).items() if value is not None}
    for key in ("load_ms", "first_ms", "minimum_ms", "p90_ms", "p99_ms", "hardware", "conditions",
                "sustained", "per_op", "peak_memory", "energy", "self_test", "notes",
                "measured_at"):  # fmt: skip
        del document[key]
    found = parsed(document)
    assert (found.p50_ms, found.per_op, found.conditions.is_throttled) == (2.0, None, None)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("p50_ms", -1.0),
        ("load_ms", -0.001),
        ("first_ms", "5"),
        ("runs", 0),
        ("runs", 2.5),
        ("warmup_runs", -1),
        ("batch_size", 0),
        ("identity.threads", 0),
        ("artifact_sha256", "abc"),
        ("artifact_sha256", "AB" * 32),
        ("measured_at", "yesterday"),
        ("sustained.0.start_s", -1.0),
        ("sustained.0.runs", 0),
        ("per_op.ops", []),
        ("per_op.ops.0.ms", -0.1),
        ("per_op.ops.0.count", 0),
        ("per_op.hooked_ms", 0.0),
        ("per_op.scaled_to", "p90_ms"),
        ("peak_memory.bytes", -5),
        ("peak_memory.counts", "gpu"),
        ("energy.inference_mj", -1.0),
        ("conditions.power_source", "solar"),
        ("conditions.temperature_after_c", 4000.0),
        ("self_test.status", "maybe"),
        ("self_test.samples", -1),
        ("notes", "one"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_file_and_schema(place: str, value: Any) -> None:
    document = changed(place, value)
    with pytest.raises(MeasurementError, match=f"m.json is malformed: {place}"):
        parsed(document)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("p90_ms", 1.0, "p50_ms is 2.0, which is above p90_ms, 1.0"),
        ("minimum_ms", 2.5, "minimum_ms is 2.5, which is above p50_ms"),
        ("p99_ms", 2.1, "p90_ms is 2.2, which is above p99_ms"),
        ("sustained.1.start_s", 0.0, "the clock went backwards in the sustained run"),
        ("per_op.ops.0.ms", 4.0, "something is counted twice"),
        ("self_test.samples", 0, "self-test is 'passed' after 0 samples"),
        ("self_test.status", "not run", "self-test is 'not run' after 64"),
    ],
)
def test_values_that_contradict_each_other_are_refused(place: str, value: Any, said: str) -> None:
    with pytest.raises(MeasurementError, match=said) as caught:
        parsed(changed(place, value))
    assert "edgesdk measurements schema" in str(caught.value.next_step)


def test_percentiles_are_compared_across_those_that_were_not_told() -> None:
    document = changed("p90_ms", None) | {"p99_ms": 1.0}
    with pytest.raises(MeasurementError, match="above p99_ms"):
        parsed(document)


@pytest.mark.parametrize(
    ("key", "near"), [("p50", "p50_ms"), ("load_mss", "load_ms"), ("sustain", "sustained")]
)
def test_an_unknown_key_is_answered_with_the_near_one(key: str, near: str) -> None:
    with pytest.raises(MeasurementError, match=rf"{key}: unknown key \(did you mean .*{near}"):
        parsed({**to_builtins(EXAMPLE), key: 1.0})


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_another_schema_version_is_refused_with_a_next_step(version: Any) -> None:
    with pytest.raises(MeasurementError, match="schema_version") as caught:
        parsed({**to_builtins(EXAMPLE), "schema_version": version})
    assert caught.value.next_step


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused(number: str) -> None:
    text = to_json(EXAMPLE).replace('"p99_ms": 3.1', f'"p99_ms": {number}')
    with pytest.raises(MeasurementError, match="cannot be read as JSON"):
        parse_measurement(text.encode(), what="m.json")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(b" " * LIMIT_BYTES + to_json(EXAMPLE).encode())
    with pytest.raises(MeasurementError, match="larger than 4 MB"):
        read_measurement(path)


def test_no_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="does not exist"):
        read_measurement(tmp_path / "m.json")
    with pytest.raises(MeasurementError, match="cannot be read"):
        read_measurement(tmp_path)


@given(st.binary(max_size=60))
@settings(max_examples=40)
def test_any_bytes_are_a_measurement_or_an_error(content: bytes) -> None:
    with pytest.raises(MeasurementError):
        parse_measurement(content, what="m.json")


@given(st.integers(min_value=1, max_value=len(to_json(EXAMPLE)) - 2))
@settings(max_examples=40)
def test_a_truncated_file_is_refused_wherever_it_ends(end: int) -> None:
    with pytest.raises(MeasurementError):
        parse_measurement(to_json(EXAMPLE).encode()[:end], what="m.json")
