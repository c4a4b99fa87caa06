from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from knowing import FULL

from edgesdk.budget import Condition
from edgesdk.figure import Figure, FigureName
from edgesdk.planner.front import pareto_front
from edgesdk.planner.options import option_for
from edgesdk.planner.search import Assessment, Decision

LATENCY = Condition(figure="latency_ms", limit=8.0)


def guess(value: float) -> Figure:
    return Figure(value=value, standing="predicted", low=value, high=value)


def assessment(
    name: str, loss: float, latency: float, size: float, *, fits: bool = True
) -> Assessment:
    figures: dict[FigureName, Figure] = {"latency_ms": guess(latency), "size_bytes": guess(size)}
    return Assessment(
        option=replace(option_for(FULL, FULL, "fp32"), name=name),
        expected_loss=loss,
        predicted=figures,
        verdicts=(),
        plausible=fits,
        possible=fits,
    )


def decision(*items: Assessment, conditions: tuple[Condition, ...] = ()) -> Decision:
    return Decision(
        chosen=items[0],
        nearest=items[0],
        assessments=items,
        conditions=conditions,
        feasibility=(),
        objective="least expected loss",
    )


ORIGINAL = assessment("original", 0.0, 10.0, 400.0, fits=False)
SMALL = assessment("small", 1.0, 4.0, 100.0)
BEATEN = assessment("beaten", 2.0, 5.0, 200.0)
SMALLER = assessment("smaller", 2.0, 6.0, 50.0)


def names(items: tuple[Assessment, ...], taken: Assessment, *conditions: Condition) -> list[str]:
    made = decision(*items, conditions=conditions)
    return [point.option for point in pareto_front(made, taken=taken)]


def test_what_another_option_beats_everywhere_is_not_on_the_front() -> None:
    items = (SMALL, ORIGINAL, BEATEN, SMALLER)
    assert names(items, SMALL) == ["small", "smaller", "original"]


def test_only_figures_with_a_limit_count_beside_latency() -> None:
    assert names((SMALL, ORIGINAL, SMALLER), SMALL, LATENCY) == ["small", "original"]


def test_the_option_taken_is_shown_even_where_it_is_beaten() -> None:
    front = pareto_front(decision(SMALL, BEATEN), taken=BEATEN)
    assert [(p.option, p.chosen) for p in front] == [("small", False), ("beaten", True)]


def test_the_front_says_what_fits() -> None:
    front = pareto_front(decision(SMALL, ORIGINAL), taken=SMALL)
    assert [point.fits for point in front] == [True, False]


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=8))
def test_nothing_on_the_front_beats_anything_else_on_it(rows: list[tuple[int, int, int]]) -> None:
    items = [assessment(str(i), *map(float, row)) for i, row in enumerate(rows)]
    kept = {int(p.option) for p in pareto_front(decision(*items), taken=items[0])}
    for i in kept - {0}:
        assert not any(
            rows[j] != rows[i] and all(a <= b for a, b in zip(rows[j], rows[i], strict=True))
            for j in range(len(rows))
        )
    for i in set(range(len(rows))) - kept:
        assert any(
            rows[j] != rows[i] and all(a <= b for a, b in zip(rows[j], rows[i], strict=True))
            for j in range(len(rows))
        )
