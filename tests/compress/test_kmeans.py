"""k-means of numbers: near the best there is, the same each time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgesdk.compress.kmeans import cluster

Floats = NDArray[np.float64]


def loss(values: Floats, counts: NDArray[np.int64], centers: Floats) -> float:
    distances = np.square(values[:, None] - centers[None]).min(axis=1)
    return float((counts * distances).sum())


def least_loss(values: Floats, counts: NDArray[np.int64], size: int) -> float:
    """The best there is, by trying every end of every cell (Wang and Song 2011, Ckmeans.1d.dp)."""
    count = len(values)
    within = np.zeros((count + 1, count + 1))
    for start in range(count):
        for end in range(start + 1, count + 1):
            part, weights = values[start:end], counts[start:end]
            mean = np.average(part, weights=weights)
            within[start, end] = (weights * np.square(part - mean)).sum()
    least = np.full(count + 1, np.inf)
    least[0] = 0
    for _ in range(size):
        least = np.array(
            [min(least[start] + within[start, end] for start in range(end + 1))
             for end in range(count + 1)]
        )  # fmt: skip
    return float(least[count])


numbers = st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=24, unique=True)


@given(numbers, st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_centers_rise_and_cost_no_more_than_one_for_all(
    numbers: list[float], size: int, seed: int
) -> None:
    values = np.sort(np.array(numbers))
    counts = np.random.default_rng(seed).integers(1, 100, len(values))
    centers = cluster(values, counts, size)
    assert len(centers) == min(size, len(values))
    assert bool((np.diff(centers) >= 0).all())
    mean = np.average(values, weights=counts)
    assert loss(values, counts, centers) <= loss(values, counts, np.array([mean])) * (1 + 1e-9)
    assert np.array_equal(centers, cluster(values, counts, size))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [2, 4, 16])
def test_they_are_the_best_there_are(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    values = np.unique(random.laplace(size=80).astype(np.float16)).astype(np.float64)
    counts = random.integers(1, 20, len(values))
    found = loss(values, counts, cluster(values, counts, size))
    assert found <= least_loss(values, counts, size) * (1 + 1e-9)


@pytest.mark.parametrize(("size", "known_db"), [(4, 9.30), (16, 20.22), (64, 31.89)])
def test_normal_weights_lose_what_max_found(size: int, known_db: float) -> None:
    # Max, "Quantizing for minimum distortion", 1960, table I; 64 levels by Panter and Dite.
    weights = np.random.default_rng(0).standard_normal(300_000).astype(np.float16)
    found, counts = np.unique(weights, return_counts=True)
    values = found.astype(np.float64)
    lost = loss(values, counts, cluster(values, counts, size))
    signal = float((counts * np.square(values)).sum())
    assert 10 * np.log10(signal / lost) == pytest.approx(known_db, abs=0.2)


def test_few_values_far_away_have_centers_of_their_own() -> None:
    values = np.append(np.linspace(-1, 1, 1000), [50.0, 51.0])
    centers = cluster(values, np.ones(len(values), np.int64), 16)
    assert bool((centers > 40).any())
    assert int((np.abs(centers) <= 1).sum()) >= 14
