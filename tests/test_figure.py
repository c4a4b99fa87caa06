import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.figure import STANDINGS, Figure, Figures, Standing, best_figure, predicted


def test_a_prediction_spans_its_error_factor() -> None:
    figure = predicted(8.0, error_factor=2.0, source="roofline")
    assert (figure.low, figure.value, figure.high) == (4.0, 8.0, 16.0)
    assert figure.standing == "predicted"


def test_an_exact_prediction_has_no_width() -> None:
    figure = predicted(8.0, error_factor=1.0, source="x")
    assert (figure.low, figure.high) == (8.0, 8.0)


def test_an_error_factor_below_one_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        predicted(8.0, error_factor=0.9, source="x")


@pytest.mark.parametrize("bounds", [{}, {"low": 1.0}, {"high": 3.0}])
def test_a_prediction_without_its_interval_is_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="interval"):
        Figure(value=2.0, standing="predicted", **bounds)


def test_a_prediction_is_judged_by_its_upper_end() -> None:
    assert Figure(value=2.0, standing="predicted", low=1.0, high=3.0).upper == 3.0


@pytest.mark.parametrize("standing", ["measured", "verified", "interpreted"])
def test_what_was_observed_is_judged_by_its_value(standing: Standing) -> None:
    assert Figure(value=2.0, standing=standing, low=1.0, high=3.0).upper == 2.0


@given(st.lists(st.sampled_from(STANDINGS), max_size=6))
def test_the_best_standing_wins_and_the_first_among_equals(standings: list[Standing]) -> None:
    sections: list[Figures] = [
        {"latency_ms": Figure(value=float(index), standing=standing, low=0.0, high=9.0)}
        for index, standing in enumerate(standings)
    ]
    found = best_figure("latency_ms", [{}, *sections, {}])
    if not standings:
        assert found is None
        return
    best = min(standings, key=STANDINGS.index)
    assert found is not None
    assert found.standing == best
    assert found.value == standings.index(best)


def test_another_name_is_not_known() -> None:
    figure = Figure(value=1.0, standing="measured")
    assert best_figure("size_bytes", [{"latency_ms": figure}]) is None
