"""The planner may split layers: what it finds, against trying everything and doing without."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from drawn import PROVABLE, conditions_at, drawn_curves
from hypothesis import given, settings
from hypothesis import strategies as st
from knowing import COMPUTER, RUNTIME, formats, precision, quantity, sensitivity
from torch import nn

from edgesdk.budget import Condition
from edgesdk.compress.prune import find_groups
from edgesdk.device import Runtime
from edgesdk.figure import Figure, FigureName
from edgesdk.low_rank import LayerSplit, Splits
from edgesdk.plan import Distil, Factorize
from edgesdk.planner.explanation import Recovery, write_plan
from edgesdk.planner.limits import AIM
from edgesdk.planner.options import Option, option_for
from edgesdk.planner.prediction import predict_costs
from edgesdk.planner.program import GAP
from edgesdk.planner.proposals import Proposer
from edgesdk.planner.search import Assessment, Decision, decide
from edgesdk.planner.sensitivity import JointPoint, Sensitivity, SplitPoint
from edgesdk.planner.splits import possible_splits
from edgesdk.planner.tables import width_choices
from edgesdk.planner.widths import WidthModel, measure_widths
from edgesdk.trace import trace

ROWS = (torch.zeros(1, 48),)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 4)
    ).eval()


@cache
def widths() -> tuple[WidthModel, tuple[tuple[int, ...], ...]]:
    model = network()
    groups = find_groups(model, ROWS)
    found, notes = measure_widths(model, ROWS, groups, trace(model, ROWS, name="m"))
    assert notes == ()
    return found, width_choices(found.full, [group.unit for group in groups], 8, most=4)


def known(seed: int = 0, *, split_loss: float = 1.0) -> Sensitivity:
    """Return sensitivities of a network of two groups and two layers at three ranks, drawn."""
    random = np.random.default_rng(seed)
    model, choices = widths()
    curves = drawn_curves(model, choices, random)
    splits = [
        SplitPoint(layer=layer, rank=rank, loss=split_loss * float(random.uniform(0.05, 2)))
        for layer, rank in possible_splits(model.graph, 8)
    ]
    return replace(
        sensitivity(points=formats({"fp32": 0.0, "int8": 0.02})),
        widths=model, curves=curves, splits=tuple(splits), joint=(),
    )  # fmt: skip


def proposer(found: Sensitivity, runtime: Runtime = RUNTIME) -> Proposer:
    return Proposer(sensitivity=found, runtimes={"": runtime}, schemes=("fp32", "int8"))


def every_option(found: Sensitivity) -> Iterator[Option]:
    """Yield every width with every split of layers whose groups are whole."""
    full = found.widths.full
    by_layer = [[None, *(s for s in found.looked_at if s.layer == layer)] for layer in ("0", "2")]
    for kept, chosen in itertools.product(
        itertools.product(*found.choices), itertools.product(*by_layer)
    ):
        splits = tuple(split for split in chosen if split is not None)
        if all(is_whole(split, kept, full) for split in splits):
            for point in found.formats:
                yield option_for(kept, full, point.scheme, splits=splits)


def is_whole(split: LayerSplit, kept: Sequence[int], full: Sequence[int]) -> bool:
    """Layer "0" gives the first group, "2" reads it and gives the second."""
    return kept[0] == full[0] and (split.layer == "0" or kept[1] == full[1])


def costs_of(found: Sensitivity, option: Option) -> dict[FigureName, Figure]:
    return predict_costs(option.graph(found.widths), RUNTIME, option.scheme)


def decided(found: Sensitivity, conditions: tuple[Condition, ...]) -> Decision:
    return decide(
        proposer(found).propose({"": RUNTIME}, conditions, PROVABLE),
        found,
        conditions,
        "least expected loss",
        recovers=True,
        provable=PROVABLE,
    )


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    share=st.floats(0.35, 1.1),
    size=st.none() | st.floats(0.15, 1.0),
)
def test_the_planner_finds_what_trying_everything_finds(
    seed: int, share: float, size: float | None
) -> None:
    found, conditions = known(seed), conditions_at(widths()[0].graph, share, size)
    priced = [(option, costs_of(found, option)) for option in every_option(found)]
    assert len(priced) > 60

    def losses(room: float) -> list[float]:
        aims: dict[FigureName, float] = {"latency_ms": AIM, "size_bytes": 1.0}
        return [
            found.loss(option)
            for option, costs in priced
            if all(costs[c.figure].value <= room * aims[c.figure] * c.limit for c in conditions)
        ]

    best = proposer(found).best_loss({"": RUNTIME}, conditions, PROVABLE, {})
    if best is None:
        # What fits to the last percent may be missed: files are priced only whole.
        assert not losses(0.98)
        return
    assert min(losses(1.0)) - 1e-9 <= best
    if losses(0.98):
        # The program counts a thousandth of a nat for each split, which no loss has.
        assert best <= (min(losses(0.98)) + 2e-3) * (1 + 2 * GAP) + 1e-4


@settings(max_examples=6)
@given(seed=st.integers(0, 1000), share=st.floats(0.3, 1.1))
def test_with_splits_it_never_does_worse_than_without(seed: int, share: float) -> None:
    found, conditions = known(seed), conditions_at(widths()[0].graph, share, None)
    with_splits, without = (
        proposer(each).best_loss({"": RUNTIME}, conditions, PROVABLE, {})
        for each in (found, replace(found, splits=()))
    )
    if without is not None:
        assert with_splits is not None
        assert with_splits <= without * (1 + 2 * GAP) + 1e-4


def test_layers_of_few_directions_are_split_where_a_limit_asks_for_it() -> None:
    found = known(split_loss=0.001)
    taken = decided(found, conditions_at(widths()[0].graph, 0.7, 0.5)).chosen
    assert taken is not None
    assert taken.option.splits
    assert taken.option.widths == found.widths.full
    assert decided(found, conditions_at(widths()[0].graph, 1.1, None)).chosen.option.splits == ()  # type: ignore[union-attr]


def test_a_device_that_waits_for_dispatch_splits_nothing() -> None:
    """Two kernels start twice: the program sees that no limit on time is nearer by it."""
    found = known(split_loss=0.0001)
    slow = replace(precision(), op_overhead_s=quantity(1e-3))
    waiting = replace(RUNTIME, precisions={"fp32": slow, "int8": slow})
    original = predict_costs(found.widths.graph, waiting, "fp32")["latency_ms"].value
    conditions = (Condition(figure="latency_ms", limit=0.9999 * original),)
    proposed = proposer(found, waiting).propose({"": waiting}, conditions, PROVABLE)
    assert {item.option.splits for item in proposed} == {()}
    on_size = (Condition(figure="size_bytes", limit=1.0),)
    at_shares = proposer(found, waiting).propose({"": waiting}, on_size, PROVABLE)
    assert any(item.option.splits for item in at_shares)


def test_a_network_with_no_group_to_prune_may_still_be_split() -> None:
    found = known(split_loss=0.01)
    bare = replace(found, widths=replace(found.widths, groups=(), full=(), extents=()), curves=())
    decision = decided(bare, conditions_at(widths()[0].graph, 1.1, 0.4))
    assert decision.chosen is not None
    options = [item.option for item in decision.assessments]
    assert any(option.splits for option in options)


def test_names_tell_how_many_layers_are_split() -> None:
    full = (8, 8)
    one, two = (LayerSplit("a", 2),), (LayerSplit("a", 2), LayerSplit("b", 4))
    assert option_for(full, full, "int8", splits=one).name == "int8, 1 layer split"
    both = option_for((4, 8), full, "fp32", removed_blocks=("c",), splits=two)
    assert both.name == "fp32, pruned 25 %, 1 block gone, 2 layers split"
    assert not option_for(full, full, "fp32", splits=one).is_whole(full)


def test_a_plan_names_the_layers_and_says_why() -> None:
    found = known(split_loss=0.001)
    decision = decided(found, conditions_at(widths()[0].graph, 0.6, None))
    assert decision.chosen is not None
    taken: Assessment = decision.chosen
    splits: Splits = taken.option.splits
    assert splits
    recovery = Recovery(
        step=Distil(epochs=7, learning_rate=0.1, temperature=4.0, alpha=0.5, patience=2),
        reason="Seven epochs recover it.",
    )
    plan = write_plan(
        taken, decision, found, task="t", task_key="k", device=COMPUTER, runtime=RUNTIME,
        recovery=recovery, refused={}, baseline={}, seed=0,
    )  # fmt: skip
    assert plan.steps[0] == Factorize(ranks=dict(splits))
    assert isinstance(plan.steps[1], Distil)
    assert plan.ranks == dict(splits)
    for layer in ("0", "2"):
        goes = layer in plan.ranks
        said = [r for r in plan.reasons if r.startswith(f"Layer {layer} is split at rank")]
        assert bool(said) == goes
        kept = [r for r in plan.reasons if r.startswith("Layers that could be split and stay")]
        assert any(f"{layer} (" in r for r in kept) != goes
    assert "Seven epochs recover it." in plan.reasons


def test_losses_of_splits_count_for_what_they_come_to_together() -> None:
    found = known()
    everything = tuple(LayerSplit(layer, 8) for layer in ("0", "2"))
    total = sum(p.loss for p in found.splits if p.rank == 8)

    def joint(loss: float, *, moved: float = 0.1, drop: float | None = None) -> JointPoint:
        return JointPoint(
            widths=found.widths.full, splits=everything, sum=total, loss=loss, disagreement=moved,
            drop=drop,
        )  # fmt: skip

    alone = found.split_loss(everything[0])
    more = replace(found, joint=(joint(3 * total, drop=0.2),))
    assert more.split_loss(everything[0]) == pytest.approx(3 * alone)
    assert more.joint_scale == 1.0
    less = replace(found, joint=(joint(total / 3),))
    assert less.split_loss(everything[0]) == alone
    failed = replace(found, joint=(joint(9 * total, moved=0.9),))
    assert failed.split_loss(everything[0]) == alone
    full = found.widths.full
    option = option_for(full, full, "fp32", splits=everything)
    assert more.loss(option) == pytest.approx(3 * total)
    drop = more.drop(option)
    assert drop is not None
    assert drop[0] == pytest.approx(0.2)
