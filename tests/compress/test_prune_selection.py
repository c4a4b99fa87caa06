"""Which channels go: the least important of the whole network, in whole steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.compress.channel_groups import ChannelGroup
from edgesdk.compress.prune import select_channels
from edgesdk.compress.selection import LEAST_KEPT
from edgesdk.errors import UsageError
from edgesdk.plan import PrunedGroup


def group(layer: str, width: int, unit: int = 1) -> ChannelGroup:
    units = tuple(tuple(range(first, width, width // unit)) for first in range(width // unit))
    return ChannelGroup(layer=layer, width=width, units=units, members=())


def test_the_least_important_of_all_groups_go_first() -> None:
    groups = (group("a", 4), group("b", 4))
    scores = {"a": [0.3, 0.1, 0.9, 0.8], "b": [5.0, 0.2, 4.0, 6.0]}
    chosen = select_channels(groups, scores, ratio=3 / 8, channel_multiple=1)
    assert chosen == (
        PrunedGroup(layer="a", width_before=4, removed=(0, 1)),
        PrunedGroup(layer="b", width_before=4, removed=(1,)),
    )


def test_a_step_is_as_important_as_its_channels_on_average() -> None:
    groups = (group("a", 8), group("b", 8))
    # One very unimportant channel does not carry three important ones along.
    scores = {"a": [0.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0], "b": [2.0] * 8}
    chosen = select_channels(groups, scores, ratio=0.25, channel_multiple=4)
    assert [(g.layer, g.removed) for g in chosen] == [("b", (0, 1, 2, 3))]


def test_channels_of_a_unit_go_together() -> None:
    scores = {"a": [0.0, 3.0, 5.0, 7.0, 9.0, 1.0, 6.0, 8.0]}
    (chosen,) = select_channels([group("a", 8, unit=2)], scores, ratio=0.25, channel_multiple=1)
    assert chosen.removed == (1, 5)


def test_widths_that_are_no_multiple_first_lose_what_is_over() -> None:
    scores = {"a": [float(c) for c in range(20)]}
    (chosen,) = select_channels([group("a", 20)], scores, ratio=0.2, channel_multiple=8)
    assert chosen.removed == (0, 1, 2, 3)


@pytest.mark.parametrize("width", [3, 8])
def test_narrow_groups_stay_whole(width: int) -> None:
    scores = {"a": [0.0] * width}
    assert select_channels([group("a", width)], scores, ratio=0.9, channel_multiple=8) == ()


def test_nothing_is_chosen_from_nothing() -> None:
    assert select_channels([], {}, ratio=0.5, channel_multiple=4) == ()


@pytest.mark.parametrize(
    ("ratio", "channel_multiple", "scores"),
    [
        (1.0, 1, [0.0] * 4),
        (-0.1, 1, [0.0] * 4),
        (math.nan, 1, [0.0] * 4),
        (0.5, 0, [0.0] * 4),
        (0.5, 1, [0.0] * 3),
        (0.5, 1, [0.0, 1.0, math.nan, 2.0]),
        (0.5, 1, [0.0, 1.0, math.inf, 2.0]),
    ],
)
def test_bad_requests(ratio: float, channel_multiple: int, scores: list[float]) -> None:
    with pytest.raises(UsageError):
        select_channels(
            [group("a", 4)], {"a": scores}, ratio=ratio, channel_multiple=channel_multiple
        )


def test_missing_scores() -> None:
    with pytest.raises(UsageError, match="'a' has 0 scores for 4 channels"):
        select_channels([group("a", 4)], {"b": [0.0] * 4}, ratio=0.5, channel_multiple=1)


@st.composite
def scored_groups(draw: st.DrawFn) -> tuple[list[ChannelGroup], dict[str, list[float]]]:
    shapes = st.tuples(st.integers(1, 12), st.sampled_from([1, 1, 2, 3]))
    drawn = draw(st.lists(shapes, min_size=1, max_size=4))
    groups = [group(str(i), count * unit, unit) for i, (count, unit) in enumerate(drawn)]
    score = st.floats(0, 1, width=32)
    scores = {g.layer: draw(st.lists(score, min_size=g.width, max_size=g.width)) for g in groups}
    return groups, scores


@given(scored_groups(), st.floats(0, 0.99), st.floats(0, 0.99), st.integers(1, 8))
def test_selection_properties(
    drawn: tuple[list[ChannelGroup], dict[str, list[float]]],
    ratio: float,
    other: float,
    channel_multiple: int,
) -> None:
    groups, scores = drawn
    by_layer = {g.layer: g for g in groups}
    chosen = select_channels(groups, scores, ratio=ratio, channel_multiple=channel_multiple)
    for pruned in chosen:
        of = by_layer[pruned.layer]
        removed = set(pruned.removed)
        assert pruned.width_before == of.width
        assert pruned.removed == tuple(sorted(removed))
        assert removed
        assert pruned.width_after % channel_multiple == 0
        assert pruned.width_after >= max(channel_multiple, LEAST_KEPT * of.width)
        assert all(removed.issuperset(unit) or removed.isdisjoint(unit) for unit in of.units)

        def score(unit: tuple[int, ...], layer: str = pruned.layer) -> float:
            return sum(scores[layer][c] for c in unit)

        gone = [score(unit) for unit in of.units if removed.issuperset(unit)]
        left = [score(unit) for unit in of.units if removed.isdisjoint(unit)]
        assert max(gone) <= min(left)
    count = sum(len(pruned.removed) for pruned in chosen)
    step = max(math.lcm(g.unit, channel_multiple) for g in groups)
    wanted = ratio * sum(g.width for g in groups)
    assert count <= wanted + step
    assert chosen == select_channels(groups, scores, ratio=ratio, channel_multiple=channel_multiple)
    # A larger ratio removes what a smaller one does, and more.
    small, large = sorted((ratio, other))
    less, more = (
        {
            (pruned.layer, c)
            for pruned in select_channels(
                groups, scores, ratio=part, channel_multiple=channel_multiple
            )
            for c in pruned.removed
        }
        for part in (small, large)
    )
    assert less <= more
