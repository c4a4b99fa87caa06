import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import MeasurementError
from edgesdk.measurement import percentile

SAMPLES = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=40)


def test_the_median_is_the_middle_or_between_the_two_middles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5


def test_other_quantiles_are_interpolated_between_ranks() -> None:
    samples = [float(value) for value in range(11)]
    assert percentile(samples, 0.9) == pytest.approx(9.0)
    assert percentile(samples, 0.99) == pytest.approx(9.9)
    assert percentile(samples, 0.25) == pytest.approx(2.5)
    assert percentile(samples, 0.0) == 0.0
    assert percentile(samples, 1.0) == 10.0


@given(st.floats(min_value=0, max_value=1e6), st.floats(min_value=0, max_value=1))
def test_one_sample_is_every_quantile(sample: float, fraction: float) -> None:
    assert percentile([sample], fraction) == sample


@given(SAMPLES)
def test_quantiles_rise_and_stay_within_the_samples(samples: list[float]) -> None:
    found = [percentile(samples, fraction) for fraction in (0.0, 0.5, 0.9, 0.99, 1.0)]
    slack = 1e-9 * max(samples)
    assert found[0] == min(samples)
    assert found[-1] == max(samples)
    assert all(low <= high + slack for low, high in itertools.pairwise(found))


@given(SAMPLES, st.randoms())
def test_the_order_of_samples_does_not_matter(samples: list[float], random: object) -> None:
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for fraction in (0.5, 0.9):
        assert percentile(shuffled, fraction) == percentile(samples, fraction)


@given(SAMPLES)
def test_the_samples_are_left_as_they_are(samples: list[float]) -> None:
    before = list(samples)
    percentile(samples, 0.9)
    assert samples == before


def test_no_samples_are_no_measurement() -> None:
    with pytest.raises(MeasurementError, match="no inference was timed"):
        percentile([], 0.5)


@pytest.mark.parametrize("bad", [-1e-9, -math.inf])
def test_a_clock_that_goes_backwards_is_not_believed(bad: float) -> None:
    with pytest.raises(MeasurementError, match="backwards") as caught:
        percentile([1.0, bad, 2.0], 0.5)
    assert caught.value.exit_code == 9
