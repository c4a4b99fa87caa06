import pytest

from edgesdk.effort import Effort
from edgesdk.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("30min", 1800), ("90 s", 90), ("1.5h", 5400), ("2m", 120)]
)
def test_times_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert Effort.parse("quick", text) == Effort(name="quick", seconds=seconds)


@pytest.mark.parametrize("text", ["30", "min", "-3min", "3 days", "0s", "nans", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="time"):
        Effort.parse("standard", text)


def test_an_unknown_effort_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="quick, standard, thorough"):
        Effort.parse("heroic")


def test_more_effort_pays_for_more() -> None:
    spendings = [Effort.parse(name).spending for name in ("quick", "standard", "thorough")]
    assert sorted(s.sample_visits for s in spendings) == [s.sample_visits for s in spendings]
    assert spendings[0].trainings == 0
