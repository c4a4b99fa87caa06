import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.planner.uncertainty import drop_margin

SHARES = st.floats(min_value=0, max_value=1)


def test_the_margin_is_the_paired_binomials() -> None:
    assert drop_margin(disagreement=0.04, samples=400) == pytest.approx(1.6449 * 0.01)


def test_no_disagreement_seen_is_not_none_there() -> None:
    assert drop_margin(disagreement=0.0, samples=100) == pytest.approx(1.6449 / 100)


def test_without_knowledge_every_sample_may_differ() -> None:
    assert drop_margin(disagreement=None, samples=100) == drop_margin(disagreement=1.0, samples=100)


@pytest.mark.parametrize("samples", [0, -1])
def test_nothing_seen_says_nothing(samples: int) -> None:
    assert drop_margin(disagreement=0.1, samples=samples) == 1.0


@given(SHARES, st.integers(1, 10**6))
def test_a_margin_is_a_share_of_the_range_and_never_nothing(share: float, samples: int) -> None:
    assert 0 < drop_margin(disagreement=share, samples=samples) <= 1


@given(SHARES, SHARES, st.integers(1, 10**6))
def test_more_disagreement_is_less_sure(one: float, other: float, samples: int) -> None:
    low, high = sorted((one, other))
    margins = [drop_margin(disagreement=share, samples=samples) for share in (low, high)]
    assert margins[0] <= margins[1]


@given(SHARES, st.integers(1, 10**5))
def test_four_times_the_samples_are_at_least_twice_as_sure(share: float, samples: int) -> None:
    few = drop_margin(disagreement=share, samples=samples)
    many = drop_margin(disagreement=share, samples=4 * samples)
    assert many <= few / 2 * (1 + 1e-9) or few == 1.0


@pytest.mark.parametrize(("gains", "losses"), [(0.02, 0.05), (0.05, 0.05), (0.0, 0.1)])
def test_it_holds_nine_true_drops_in_ten(gains: float, losses: float) -> None:
    """Of two models that answer differently on known shares of samples, the drop is known."""
    samples, trials = 300, 2000
    random = np.random.default_rng(0)
    moves = random.choice([1, -1, 0], p=[losses, gains, 1 - losses - gains], size=(trials, samples))
    drops = moves.mean(axis=1)
    margins = np.array(
        [
            drop_margin(disagreement=float(share), samples=samples)
            for share in np.abs(moves).mean(axis=1)
        ]
    )
    held = float((np.abs(drops - (losses - gains)) <= margins).mean())
    assert held >= 0.88
    assert math.isfinite(held)
