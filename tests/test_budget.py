import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.budget import (
    Budget,
    Condition,
    Relative,
    absolute_conditions,
    format_figure,
    judge,
)
from edgesdk.errors import UsageError
from edgesdk.figure import Figure, FigureName, predicted

POSITIVE = st.floats(min_value=1e-6, max_value=1e12)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("8ms", 8.0),
        ("0.5s", 500.0),
        ("250us", 0.25),
        ("250µs", 0.25),  # the micro sign
        ("250μs", 0.25),  # the Greek letter, which looks the same
        ("4e5ns", 0.4),
        ("  8 ms ", 8.0),
        (".5ms", 0.5),
        ("5.ms", 5.0),
        ("+8ms", 8.0),
    ],
)
def test_latency_units(text: str, milliseconds: float) -> None:
    found = Budget.parse(latency=text).latency_ms
    assert isinstance(found, float)
    assert found == pytest.approx(milliseconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1B", 1),
        ("1KB", 1_000),
        ("1kB", 1_000),
        ("1MB", 1_000_000),
        ("1GB", 1_000_000_000),
        ("1KiB", 1_024),
        ("1MiB", 1_048_576),
        ("1GiB", 1_073_741_824),
        ("1.5MiB", 1_572_864),
    ],
)
@pytest.mark.parametrize("flag", ["memory", "size", "download"])
def test_byte_units_tell_decimal_from_binary(flag: str, text: str, size_bytes: int) -> None:
    budget = Budget.parse(**{flag: text})
    assert getattr(budget, f"{flag}_bytes") == size_bytes


@pytest.mark.parametrize(
    ("text", "millijoules"), [("3mJ", 3.0), ("2J", 2000.0), ("800uJ", 0.8), ("800µJ", 0.8)]
)
def test_energy_units(text: str, millijoules: float) -> None:
    assert Budget.parse(energy=text).energy_mj == pytest.approx(millijoules, rel=1e-12)


@pytest.mark.parametrize("text", ["1%", "0.01", "1 %", "1e-2"])
def test_one_point_of_the_metric_in_any_spelling(text: str) -> None:
    assert Budget.parse(max_drop=text).max_drop == pytest.approx(0.01, rel=1e-12)


def test_a_drop_may_be_zero_or_negative() -> None:
    assert Budget.parse(max_drop="0").max_drop == 0.0
    assert Budget.parse(max_drop="-2%").max_drop == pytest.approx(-0.02)


@pytest.mark.parametrize("flag", ["latency", "memory", "size", "download", "energy"])
def test_a_percentage_is_relative_to_the_baseline(flag: str) -> None:
    budget = Budget.parse(**{flag: "25%"})
    [limit] = [value for value in vars(budget).values() if value is not None]
    assert limit == Relative(fraction=0.25)


def test_a_drop_is_never_relative() -> None:
    assert Budget.parse(max_drop="25%").max_drop == 0.25


@given(POSITIVE)
def test_what_is_written_is_what_is_meant(number: float) -> None:
    assert Budget.parse(latency=f"{number!r}ms") == Budget(latency_ms=number)
    assert Budget.parse(size=f"{number!r} B") == Budget(size_bytes=number)
    assert Budget.parse(energy=f"{number!r}mJ") == Budget(energy_mj=number)


@given(st.sampled_from(["size_bytes", "latency_ms", "energy_mj"]), POSITIVE)
def test_what_is_shown_can_be_typed_again(name: FigureName, value: float) -> None:
    flag = {"size_bytes": "size", "latency_ms": "latency", "energy_mj": "energy"}[name]
    shown = format_figure(name, value)
    if name == "size_bytes" and value < 0.5:
        assert shown == "0 B"
        return
    again = getattr(Budget.parse(**{flag: shown}), name)
    assert again == pytest.approx(value, rel=5.1e-3, abs=0.5 if name == "size_bytes" else 0.0)


@pytest.mark.parametrize(
    "text",
    ["8 parsecs", "8", "", " ", "ms", "nan", "nanms", "inf", "infms", "-3ms", "0ms", "1e400ms",
     "8ms 9ms", "8,5ms", "0x8ms", "8ms%", "%", "-25%", "0%", "nan%", "--8ms", "8 m s", "8\x00ms"],
)  # fmt: skip
def test_what_is_no_latency_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Budget.parse(latency=text)
    assert caught.value.exit_code == 2
    assert "latency" in str(caught.value)


@given(st.text(max_size=12))
def test_any_text_is_a_finite_positive_limit_or_a_usage_error(text: str) -> None:
    try:
        limit = Budget.parse(size=text).size_bytes
    except UsageError:
        return
    assert limit is not None
    number = limit.fraction if isinstance(limit, Relative) else limit
    assert math.isfinite(number)
    assert number > 0


@pytest.mark.parametrize(
    ("flag", "text", "hint"),
    [
        ("latency", "8MS", "use ms"),
        ("latency", "8msec", "use ms"),
        ("latency", "8MB", "use one of"),
        ("size", "8mb", "use MB"),
        ("size", "8mib", "use MiB"),
        ("size", "8b", "use B"),
        ("size", "8ms", "use one of"),
        ("memory", "8Kib", "use KiB"),
        ("energy", "8MJ", "use mJ"),
    ],
)
def test_a_wrong_unit_is_answered_with_the_near_one(flag: str, text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Budget.parse(**{flag: text})
    problem = caught.value
    assert repr(text) in problem.found
    assert "unknown unit" in problem.found
    assert problem.next_step is not None
    assert problem.next_step.startswith(hint)


@pytest.mark.parametrize(("flag", "unit"), [("latency", "ms"), ("size", "MB"), ("energy", "mJ")])
def test_a_number_without_unit_names_the_units(flag: str, unit: str) -> None:
    with pytest.raises(UsageError, match="has no unit") as caught:
        Budget.parse(**{flag: "8"})
    assert unit in str(caught.value.next_step)


def test_every_unit_that_is_suggested_is_accepted() -> None:
    for flag in ("latency", "size", "energy"):
        with pytest.raises(UsageError) as caught:
            Budget.parse(**{flag: "8 parsecs"})
        assert caught.value.next_step is not None
        for unit in caught.value.next_step.removeprefix("use one of ").split(", "):
            assert not Budget.parse(**{flag: f"8 {unit}"}).is_empty


@pytest.mark.parametrize("text", ["101%", "2", "-1.5", "nan", "1pt", "", "5 points"])
def test_what_is_no_drop_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="drop"):
        Budget.parse(max_drop=text)


@pytest.mark.parametrize("name", [field.name for field in fields(Budget)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "8", True, (8,)])
def test_what_is_no_number_is_no_limit(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        Budget(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("fraction", [0.0, -0.25, math.nan, math.inf])
def test_a_relative_limit_is_positive_and_finite(fraction: float) -> None:
    with pytest.raises(UsageError):
        Budget(size_bytes=Relative(fraction=fraction))


@pytest.mark.parametrize("value", [0, -1.0])
def test_nothing_can_take_no_time(value: float) -> None:
    with pytest.raises(UsageError, match="above zero"):
        Budget(latency_ms=value)


def test_an_empty_budget_knows_it() -> None:
    assert Budget().is_empty
    assert not Budget(max_drop=0.0).is_empty


def test_conditions_resolve_relative_limits_against_the_baseline() -> None:
    baseline: dict[FigureName, Figure] = {
        "latency_ms": Figure(value=10.0, standing="measured"),
        "size_bytes": predicted(1000.0, error_factor=2.0, source="x"),
    }
    budget = Budget(latency_ms=Relative(fraction=0.5), size_bytes=Relative(fraction=0.3))
    latency, size = absolute_conditions(budget, baseline, {})
    assert latency == Condition(figure="latency_ms", limit=5.0, relative=0.5)
    # The baseline's centre counts, not its upper end: a limit must not grow with ignorance.
    assert size == Condition(figure="size_bytes", limit=300.0, relative=0.3)


def test_a_relative_limit_on_an_unknown_baseline_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="energy_mj") as caught:
        absolute_conditions(Budget(energy_mj=Relative(fraction=0.5)), {}, {})
    assert "absolute" in str(caught.value)


def test_a_device_adds_its_own_limits_beside_the_budgets() -> None:
    found = absolute_conditions(Budget(memory_bytes=64_000, max_drop=0.01), {}, {"memory_bytes": 9})
    assert found == (
        Condition(figure="memory_bytes", limit=64_000),
        Condition(figure="accuracy_drop", limit=0.01),
        Condition(figure="memory_bytes", limit=9, asked_by="device"),
    )


LATENCY = Condition(figure="latency_ms", limit=8.0)


def test_a_condition_without_figure_is_never_met() -> None:
    verdict = judge(LATENCY, [{}, {"size_bytes": Figure(value=1.0, standing="verified")}])
    assert not verdict.met
    assert verdict.figure is None
    assert "not known" in verdict.reason


def test_a_prediction_must_keep_the_limit_with_its_upper_end() -> None:
    within = predicted(4.0, error_factor=2.0, source="x")
    above = predicted(4.1, error_factor=2.0, source="x")
    assert judge(LATENCY, [{"latency_ms": within}]).met
    assert not judge(LATENCY, [{"latency_ms": above}]).met


def test_a_measurement_overrules_a_prediction_either_way() -> None:
    hopeful = predicted(1.0, error_factor=1.0, source="x")
    gloomy = predicted(100.0, error_factor=1.0, source="x")
    slow = Figure(value=8.1, standing="measured", low=1.0, high=20.0)
    fast = Figure(value=8.0, standing="measured", low=1.0, high=20.0)
    refuted = judge(LATENCY, [{"latency_ms": hopeful}, {"latency_ms": slow}])
    proven = judge(LATENCY, [{"latency_ms": gloomy}, {"latency_ms": fast}])
    assert (refuted.met, refuted.figure) == (False, slow)
    assert (proven.met, proven.figure) == (True, fast)


def test_nothing_that_is_not_a_number_meets_a_limit() -> None:
    assert not judge(LATENCY, [{"latency_ms": Figure(value=math.nan, standing="measured")}]).met


def test_a_verdict_names_the_standing_it_rests_on() -> None:
    measured = judge(LATENCY, [{"latency_ms": Figure(value=9.0, standing="measured")}])
    assert measured.reason == "9 ms (measured) is above the limit of 8 ms"
    guessed = judge(LATENCY, [{"latency_ms": predicted(2.0, error_factor=2.0, source="x")}])
    assert "upper bound of the prediction" in guessed.reason
