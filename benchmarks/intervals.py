"""How sure a benchmark's figure is: percentile bootstrap intervals (Efron, Tibshirani 1993)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

_RESAMPLES = 2_000
_TAILS = (2.5, 97.5)
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def shown(self, *, scale: float = 1.0, digits: int = 2) -> str:
        """Return it as ``value (low to high)``, times ``scale``."""
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


def rank_correlation(expected: Sequence[float], real: Sequence[float]) -> Estimate:
    """Return Spearman's correlation, its interval from resampled pairs.

    Resamples in which either side is the same everywhere have no correlation and are left out.
    """
    pairs = np.array([expected, real], dtype=float)
    random = np.random.default_rng(_SEED)
    chosen = random.integers(0, len(expected), (_RESAMPLES, len(expected)))
    found = _correlations(pairs[:, chosen])
    low, high = np.nanpercentile(found, _TAILS)
    value = float(_correlations(pairs[:, None])[0])
    return Estimate(value=value, low=float(low), high=float(high))


def _correlations(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's correlation of each row of ``[2, rows, samples]``: that of the ranks."""
    ranks = rankdata(pairs, axis=-1)
    centred = ranks - ranks.mean(-1, keepdims=True)
    x, y = centred
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return found


def paired_difference(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Estimate:
    """Return how much more of ``ours`` is right, both ``[seeds, images]``, as a share.

    Seeds and images are resampled, the images together for both: which images are hard is
    common to them and says nothing about who is better. A seed of one has no partner among the
    other's seeds, so those are drawn apart.
    """
    random = np.random.default_rng(_SEED)
    found = []
    for _ in range(_RESAMPLES):
        images = random.integers(0, ours.shape[1], ours.shape[1])
        first, second = (
            side[random.integers(0, len(side), len(side))][:, images].mean()
            for side in (ours, theirs)
        )
        found.append(first - second)
    low, high = np.percentile(found, _TAILS)
    return Estimate(value=float(ours.mean() - theirs.mean()), low=float(low), high=float(high))
