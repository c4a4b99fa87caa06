"""The program against trying everything, on tables small enough for that."""

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.low_rank import LayerSplit
from edgesdk.planner.block_costs import BlockCost, BlockPart
from edgesdk.planner.departures import Departure, DepartureCost
from edgesdk.planner.program import GAP, Limits, Losses, solve
from edgesdk.planner.splits import SplitCost
from edgesdk.planner.tables import CostTable, CostTables, Floats

WIDTHS = (3, 2, 3)
PAIRS = ((0, 1), (1, 2))


def rows(random: np.random.Generator) -> tuple[Floats, ...]:
    """Return costs that grow with the width, 0 at the original's."""
    return tuple(np.sort(-random.uniform(0, 5, n))[::1] * np.linspace(1, 0, n) for n in WIDTHS)


def table(random: np.random.Generator) -> CostTable:
    pair = {(a, b): random.uniform(0, 1, (WIDTHS[a], WIDTHS[b])) for a, b in PAIRS}
    return CostTable(constant=20.0, single=rows(random), pair=pair)


# Which groups the departures' layers depend on; the first layer has two schemes to go to.
DEPARTING = (("a", (0, 1)), ("a", (0, 1)), ("b", (1,)), ("c", ()))


def departure_costs(random: np.random.Generator) -> tuple[DepartureCost, ...]:
    """Return layers that get slower and larger, or the other way round."""
    found = []
    for index, (layer, groups) in enumerate(DEPARTING):
        shape = tuple(WIDTHS[g] for g in groups)
        sign = -1.0 if index == 1 else 1.0
        found.append(
            DepartureCost(
                departure=Departure(layer, "w4" if index == 1 else "fp32"),
                groups=groups,
                latency_ms=sign * random.uniform(0, 3, shape),
                weight_bytes=sign * random.uniform(0, 3, shape),
            )
        )
    return tuple(found)


# Which groups the parts of a block's cost depend on, and at which moments it runs. In the first
# block lies the layer "b", which may depart.
BLOCKS = (("b", ((1, 2),), (1,)), ("c", ((0,), (2,)), (2, 3)), ("d", (), ()))
MOMENTS = 4


def block_costs(random: np.random.Generator, alive: Floats) -> tuple[BlockCost, ...]:
    """Return blocks that save a little, the more the wider their groups are."""
    found = []
    for name, groups, moments in BLOCKS:
        parts = []
        for part in groups:
            shape = tuple(WIDTHS[g] for g in part)
            slower, larger = (np.sort(random.uniform(0, 2, shape)) for _ in range(2))
            parts.append(BlockPart(groups=part, latency_ms=slower, weight_bytes=larger))
        own = np.isin(np.arange(MOMENTS), moments)
        found.append(
            BlockCost(
                block=name,
                latency_ms=random.uniform(0, 1),
                weight_bytes=random.uniform(0, 1),
                container_bytes=random.uniform(0, 1),
                parts=tuple(parts),
                alive=np.where(own, alive, 0.0),
            )
        )
    return tuple(found)


# Which layers may be split at which rank, and the groups that have to be whole for it. "a" and "b"
# may depart as well, "b" lies in the first block.
SPLITS = (("a", 2, (0, 1)), ("a", 4, (0, 1)), ("b", 3, (1,)), ("e", 2, ()))


def split_costs(random: np.random.Generator) -> tuple[SplitCost, ...]:
    """Return splits that mostly save something, with a little more to be said of them."""
    return tuple(
        SplitCost(
            split=LayerSplit(layer, rank),
            groups=groups,
            latency_ms=-random.uniform(-0.5, 3),
            weight_bytes=-random.uniform(-0.5, 3),
            container_bytes=random.uniform(0, 0.3),
        )
        for layer, rank, groups in SPLITS
    )


def tables(
    seed: int, *, weights_in_ram: bool, departing: bool = False, shortening: bool = False,
    splitting: bool = False,
) -> tuple[CostTables, Losses]:  # fmt: skip
    random = np.random.default_rng(seed)
    moments = MOMENTS
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
        departures=departure_costs(random) if departing else (),
    )
    losses = Losses(widths=[np.linspace(1, 0, n) * random.uniform(0.1, 4) for n in WIDTHS])
    if departing:
        changes = [-random.uniform(0, 0.2), random.uniform(0, 1), *-random.uniform(0, 0.2, 2)]
        losses = replace(losses, departures=changes, network=1.0)
    if shortening:
        made = replace(made, blocks=block_costs(random, made.alive_constant))
        losses = replace(losses, blocks=random.uniform(0.1, 3, len(BLOCKS)).tolist())
    if splitting:
        made = replace(made, splits=split_costs(random))
        losses = replace(losses, splits=random.uniform(0.05, 2, len(SPLITS)).tolist())
    return made, losses


Departed = tuple[int, ...]


def departed_sets(made: CostTables) -> list[Departed]:
    """Return every set of departures, no layer having two schemes."""
    count = len(made.departures)
    every = (chosen for n in range(count + 1) for chosen in itertools.combinations(range(count), n))
    layers = [cost.departure.layer for cost in made.departures]
    return [chosen for chosen in every if len({layers[d] for d in chosen}) == len(chosen)]


def departed_cost(
    made: CostTables, places: tuple[int, ...], departed: Departed, name: str
) -> float:
    """Return what departures add to a cost at those widths."""
    costs = (made.departures[d] for d in departed)
    return float(sum(getattr(c, name)[tuple(places[g] for g in c.groups)] for c in costs))


def memory(made: CostTables, places: tuple[int, ...], stored: float, gone: Departed = ()) -> float:
    """Return the peak over the moments that are left."""
    alive = made.alive_constant + sum(p[i] for p, i in zip(made.alive, places, strict=True))
    skipped = {t for b in gone for t in BLOCKS[b][2]}
    left = [value for t, value in enumerate(alive) if t not in skipped]
    weights = stored if made.weights_in_ram else 0.0
    return float(np.max(left)) + made.resident.at(places) + weights


def keeps(
    made: CostTables, places: tuple[int, ...], limits: Limits, departed: Departed = (),
    gone: Departed = (), *, split: Departed = (),
) -> bool:  # fmt: skip
    latency, stored = made.costs_at(places, [made.blocks[b] for b in gone])
    latency += sum(made.splits[s].latency_ms for s in split)
    stored += sum(made.splits[s].weight_bytes for s in split)
    latency += departed_cost(made, places, departed, "latency_ms")
    stored += departed_cost(made, places, departed, "weight_bytes")
    containers = sum(made.blocks[b].container_bytes for b in gone)
    containers -= sum(made.splits[s].container_bytes for s in split)
    return (
        latency <= limits.latency_ms + 1e-6
        and stored - containers <= limits.weight_bytes + 1e-6
        and memory(made, places, stored, gone) <= limits.memory_bytes + 1e-6
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
    found = solve([made], losses, [limits])
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert keeps(made, found.places, limits)
    least = min(losses.at(p, ()) for p in fitting)
    assert found.loss <= least * (1 + 2 * GAP) + 1e-4
    assert 0 <= found.gap <= GAP


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), limits=LIMITS, weights_in_ram=st.booleans())
def test_widths_and_departures_are_chosen_together(
    seed: int, limits: Limits, weights_in_ram: bool
) -> None:
    made, losses = tables(seed, weights_in_ram=weights_in_ram, departing=True)
    everything = itertools.product(itertools.product(*map(range, WIDTHS)), departed_sets(made))
    fitting = [(p, d) for p, d in everything if keeps(made, p, limits, d)]
    found = solve([made], losses, [limits])
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert keeps(made, found.places, limits, found.departures)
    assert found.departures in departed_sets(made)
    least = min(losses.at(p, d) for p, d in fitting)
    assert found.loss <= least * (1 + 2 * GAP) + 1e-4
    assert 0 <= found.gap <= GAP


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    limits=LIMITS,
    weights_in_ram=st.booleans(),
    departing=st.booleans(),
)
def test_widths_departures_and_blocks_are_chosen_together(
    seed: int, limits: Limits, weights_in_ram: bool, departing: bool
) -> None:
    """A layer of a block that goes departs to nowhere."""
    made, losses = tables(seed, weights_in_ram=weights_in_ram, departing=departing, shortening=True)
    goings = [gone for n in range(4) for gone in itertools.combinations(range(len(BLOCKS)), n)]
    allowed = [
        (departed, gone)
        for departed, gone in itertools.product(departed_sets(made), goings)
        if not {made.departures[d].departure.layer for d in departed} & {BLOCKS[b][0] for b in gone}
    ]
    everything = [
        (places, *switched)
        for places in itertools.product(*map(range, WIDTHS))
        for switched in allowed
    ]
    fitting = [(p, d, g) for p, d, g in everything if keeps(made, p, limits, d, g)]
    found = solve([made], losses, [limits])
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert (found.departures, found.blocks) in allowed
    assert keeps(made, found.places, limits, found.departures, found.blocks)
    least = min(losses.at(p, d, g) for p, d, g in fitting)
    assert found.loss <= least * (1 + 2 * GAP) + 1e-4
    assert 0 <= found.gap <= GAP


def is_allowed(
    made: CostTables, places: tuple[int, ...], departed: Departed, gone: Departed, split: Departed
) -> bool:
    """Return whether no layer is changed twice, none that is gone, and none narrow is split."""
    lost = {BLOCKS[b][0] for b in gone}
    changed = [made.departures[d].departure.layer for d in departed]
    changed += [SPLITS[s][0] for s in split]
    whole = {g for g, place in enumerate(places) if place == WIDTHS[g] - 1}
    fits = all(set(SPLITS[s][2]) <= whole for s in split)
    return fits and len(set(changed)) == len(changed) and not lost & set(changed)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    limits=LIMITS,
    weights_in_ram=st.booleans(),
    departing=st.booleans(),
    shortening=st.booleans(),
)
def test_splits_are_chosen_together_with_everything_else(
    seed: int, limits: Limits, weights_in_ram: bool, departing: bool, shortening: bool
) -> None:
    """A layer is split whole or not at all, and never departs or goes as well."""
    made, losses = tables(
        seed, weights_in_ram=weights_in_ram, departing=departing, shortening=shortening,
        splitting=True,
    )  # fmt: skip
    count = len(BLOCKS) if shortening else 0
    goings = [gone for n in range(count + 1) for gone in itertools.combinations(range(count), n)]
    splits = [s for n in range(4) for s in itertools.combinations(range(len(SPLITS)), n)]
    everything = itertools.product(
        itertools.product(*map(range, WIDTHS)), departed_sets(made), goings, splits
    )
    fitting = [
        chosen
        for chosen in everything
        if is_allowed(made, *chosen)
        and keeps(made, chosen[0], limits, chosen[1], chosen[2], split=chosen[3])
    ]
    found = solve([made], losses, [limits])
    if not fitting:
        assert found is None
        return
    assert found is not None
    taken = (found.departures, found.blocks, found.splits)
    assert is_allowed(made, found.places, *taken)
    assert keeps(made, found.places, limits, *taken[:2], split=taken[2])
    least = min(losses.at(*chosen) for chosen in fitting)
    assert found.loss == losses.at(found.places, *taken)
    assert found.loss <= least * (1 + 2 * GAP) + 1e-4
    assert 0 <= found.gap <= GAP


def test_nothing_is_split_that_no_limit_asks_for() -> None:
    made, losses = tables(6, weights_in_ram=False, splitting=True)
    found = solve([made], losses, [Limits()])
    assert found is not None
    assert (found.splits, found.loss) == ((), 0.0)


def test_no_block_goes_that_no_limit_asks_for() -> None:
    made, losses = tables(6, weights_in_ram=False, shortening=True)
    found = solve([made], losses, [Limits()])
    assert found is not None
    assert (found.blocks, found.loss) == ((), 0.0)


def test_a_block_that_loses_nothing_goes() -> None:
    made, losses = tables(6, weights_in_ram=False, shortening=True)
    found = solve([made], replace(losses, blocks=[0.0, 1.0, 1.0]), [Limits()])
    assert found is not None
    assert found.blocks == (0,)


def test_without_limits_every_layer_that_gains_departs() -> None:
    made, losses = tables(4, weights_in_ram=False, departing=True)
    found = solve([made], losses, [Limits()])
    assert found is not None
    assert found.places == tuple(n - 1 for n in WIDTHS)
    assert found.departures == (0, 2, 3)


def test_without_limits_everything_stays() -> None:
    made, losses = tables(1, weights_in_ram=False)
    found = solve([made], losses, [Limits()])
    assert found is not None
    assert found.places == tuple(n - 1 for n in WIDTHS)
    assert found.loss == 0.0


def test_the_same_question_has_the_same_answer() -> None:
    made, losses = tables(2, weights_in_ram=True)
    limits = Limits(latency_ms=18.0, memory_bytes=30.0)
    assert solve([made], losses, [limits]) == solve([made], losses, [limits])


def test_of_equal_losses_the_faster_is_taken() -> None:
    made, losses = tables(3, weights_in_ram=False)
    free = Losses(widths=[np.zeros_like(row) for row in losses.widths])
    found = solve([made], free, [Limits()])
    assert found is not None
    everything = itertools.product(*(range(n) for n in WIDTHS))
    fastest = min(made.latency_ms.at(places) for places in everything)
    assert made.latency_ms.at(found.places) <= fastest * 1.05


@settings(max_examples=40)
@given(
    seeds=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), limits=st.tuples(LIMITS, LIMITS)
)
def test_of_several_devices_every_one_is_kept(
    seeds: tuple[int, int], limits: tuple[Limits, Limits]
) -> None:
    (one, losses), (other, _) = (tables(seed, weights_in_ram=True) for seed in seeds)
    everything = itertools.product(*(range(n) for n in WIDTHS))
    fitting = [p for p in everything if keeps(one, p, limits[0]) and keeps(other, p, limits[1])]
    found = solve([one, other], losses, limits)
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert keeps(one, found.places, limits[0])
    assert keeps(other, found.places, limits[1])
    assert found.loss <= min(losses.at(p, ()) for p in fitting) * (1 + 2 * GAP) + 1e-4


def test_devices_may_price_other_pairs_of_groups() -> None:
    one, losses = tables(5, weights_in_ram=False)
    other = replace(one, latency_ms=replace(one.latency_ms, pair={(0, 2): np.ones((3, 3))}))
    free = one.latency_ms.constant - 1
    found = solve([one, other], losses, [Limits(), Limits(latency_ms=free)])
    assert found is not None
    assert other.latency_ms.at(found.places) <= free + 1e-6
