"""A second runtime's answers beside the first one's."""

from __future__ import annotations

import numpy as np
import pytest

from edgesdk.stages.twin import judge_twin
from edgesdk.target import Twin

ONES = np.ones((4, 1, 10), np.int8)
ONE_OFF = ONES.copy()
ONE_OFF[2, 0, 3] = 2
FAR = ONES.copy()
FAR[0] = 90


@pytest.mark.parametrize(
    ("most", "theirs", "noise_db", "passed", "said"),
    [
        (0, ONES, None, True, "bit-identical in 40 values"),
        (0, ONE_OFF, 60.0, False, "1 of 40 values differ by at most 1 units; it rounds"),
        (1, ONE_OFF, 60.0, True, "1 of 40 values differ by at most 1 units; it rounds"),
        (1, FAR, 0.0, False, "10 of 40 values differ by at most 89 units; it rounds"),
        (None, ONE_OFF, 45.0, True, "signal to noise 45.0 dB"),
        (None, FAR, 39.9, False, "signal to noise 39.9 dB"),
        (None, FAR, None, False, "signal to noise None dB"),
    ],
)
def test_two_runtimes_agree_as_far_as_they_must(
    most: int | None, theirs: np.ndarray, noise_db: float | None, passed: bool, said: str
) -> None:
    twin = Twin(host_runtime="other", most_units=most, reason="it rounds")
    check = judge_twin([ONES], [theirs], noise_db, twin)
    assert (check.name, check.passed) == ("answers are those of other", passed)
    assert said in check.detail


def test_the_largest_gap_of_int8_does_not_wrap() -> None:
    low, high = np.full((1, 2), -128, np.int8), np.full((1, 2), 127, np.int8)
    check = judge_twin([low], [high], 0.0, Twin(host_runtime="other", most_units=1))
    assert "at most 255 units" in check.detail
