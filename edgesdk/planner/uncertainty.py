"""How sure a difference between two scores on the same samples is."""

from __future__ import annotations

import math

# Two-sided 90 % of a normal distribution.
_Z90 = 1.6449


def drop_margin(*, disagreement: float | None, samples: int) -> float:
    """Return half the 90 % interval of a metric drop between two models on the same samples.

    For a mean of per-sample scores in [0, 1] only samples where the two models disagree can
    contribute, each at most 1, so the variance of the paired mean is at most ``d / n`` (McNemar's
    setting). ``d`` is at least one sample's worth, since zero seen is not zero. Where the
    disagreement is not known every sample may differ and ``d`` is 1.
    """
    if samples < 1:
        return 1.0
    share = 1.0 if disagreement is None else max(disagreement, 1 / samples)
    return min(1.0, _Z90 * math.sqrt(share / samples))
