"""The program against trying everything, on tables small enough for that."""

import itertools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.planner.program import GAP, Limits, solve
from edgesdk.planner.tables import CostTable, CostTables, Floats

WIDTHS = (3, 2, 3)
PAIRS = ((0, 1), (1, 2))


def rows(random: np.random.Generator) -> tuple[Floats, ...]:
    """Return costs that grow with the width, 0 at the original's."""
    return tuple(np.sort(-random.uniform(0, 5, n))[::1] * np.linspace(1, 0, n) for n in WIDTHS)


def table(random: np.random.Generator) -> CostTable:
    pair = {(a, b): random.uniform(0, 1, (WIDTHS[a], WIDTHS[b])) for a, b in PAIRS}
    return CostTable(constant=20.0, single=rows(random), pair=pair)


def tables(seed: int, *, weights_in_ram: bool) -> tuple[CostTables, list[Floats]]:
    random = np.random.default_rng(seed)
    moments = 4
    alive = tuple(
        -random.uniform(0, 3, (n, moments)) * np.linspace(1, 0, n)[:, None] for n in WIDTHS
    )
    made = CostTables(
        choices=tuple(tuple(range(1, n + 1)) for n in WIDTHS),
        latency_ms=table(random),
        weight_bytes=table(random),
        alive_constant=random.uniform(9, 12, moments),
        alive=alive,
        resident=CostTable(constant=2.0, single=rows(random), pair={}),
        weights_in_ram=weights_in_ram,
    )
    losses = [np.linspace(1, 0, n) * random.uniform(0.1, 4) for n in WIDTHS]
    return made, losses


def memory(made: CostTables, places: tuple[int, ...]) -> float:
    alive = made.alive_constant + sum(p[i] for p, i in zip(made.alive, places, strict=True))
    weights = made.weight_bytes.at(places) if made.weights_in_ram else 0.0
    return float(np.max(alive)) + made.resident.at(places) + weights


def keeps(made: CostTables, places: tuple[int, ...], limits: Limits) -> bool:
    return (
        made.latency_ms.at(places) <= limits.latency_ms + 1e-6
        and made.weight_bytes.at(places) <= limits.weight_bytes + 1e-6
        and memory(made, places) <= limits.memory_bytes + 1e-6
    )


LIMITS = st.builds(
    Limits,
    latency_ms=st.just(np.inf) | st.floats(12, 24),
    weight_bytes=st.just(np.inf) | st.floats(12, 24),
    memory_bytes=st.just(np.inf) | st.floats(8, 40),
)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), limits=LIMITS, weights_in_ram=st.booleans())
def test_it_finds_what_trying_everything_finds(
    seed: int, limits: Limits, weights_in_ram: bool
) -> None:
    made, losses = tables(seed, weights_in_ram=weights_in_ram)
    everything = itertools.product(*(range(n) for n in WIDTHS))
    fitting = [p for p in everything if keeps(made, p, limits)]
    found = solve(made, losses, limits)
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert keeps(made, found.places, limits)
    least = min(sum(row[i] for row, i in zip(losses, p, strict=True)) for p in fitting)
    assert found.loss <= least * (1 + 2 * GAP) + 1e-4
    assert 0 <= found.gap <= GAP


def test_without_limits_everything_stays() -> None:
    made, losses = tables(1, weights_in_ram=False)
    found = solve(made, losses, Limits())
    assert found is not None
    assert found.places == tuple(n - 1 for n in WIDTHS)
    assert found.loss == 0.0


def test_the_same_question_has_the_same_answer() -> None:
    made, losses = tables(2, weights_in_ram=True)
    limits = Limits(latency_ms=18.0, memory_bytes=30.0)
    assert solve(made, losses, limits) == solve(made, losses, limits)


def test_of_equal_losses_the_faster_is_taken() -> None:
    made, losses = tables(3, weights_in_ram=False)
    free: Any = [np.zeros_like(row) for row in losses]
    found = solve(made, free, Limits())
    assert found is not None
    everything = itertools.product(*(range(n) for n in WIDTHS))
    fastest = min(made.latency_ms.at(places) for places in everything)
    assert made.latency_ms.at(found.places) <= fastest * 1.05
