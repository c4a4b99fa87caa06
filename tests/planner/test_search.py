import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from knowing import COMPUTER, MICRO, OPTIONS, SCHEMES, formats, sensitivity

from edgesdk.budget import Budget, Relative, absolute_conditions
from edgesdk.device import DeviceProfile
from edgesdk.errors import UsageError
from edgesdk.figure import Figure, FigureName, Figures
from edgesdk.planner import search
from edgesdk.planner.options import Option
from edgesdk.planner.proposals import Proposed
from edgesdk.planner.search import Decision, decide, resolve_budget

NAMES = tuple(OPTIONS)

Table = Mapping[str, Figures]


def guess(value: float, factor: float = 2.0) -> Figure:
    low, high = sorted((value / factor, value * factor))
    return Figure(value=value, standing="predicted", low=low, high=high)


def drop(value: float, margin: float = 0.005) -> Figure:
    return Figure(value=value, standing="predicted", low=value - margin, high=value + margin)


# What each format loses and, added to either, what half of the channels do.
FORMATS = {"fp32": 0.0, "int8": 0.1}
PRUNED = 1.0
FIGURES: Table = {
    "fp32": {"latency_ms": guess(16), "size_bytes": guess(400), "accuracy_drop": drop(0.0)},
    "int8": {"latency_ms": guess(8), "size_bytes": guess(100), "accuracy_drop": drop(0.01)},
    "fp32, pruned 50 %": {
        "latency_ms": guess(4),
        "size_bytes": guess(200),
        "accuracy_drop": drop(0.04),
    },
    "int8, pruned 50 %": {
        "latency_ms": guess(2),
        "size_bytes": guess(50),
        "accuracy_drop": drop(0.06),
    },
}

Decide = Callable[..., Decision]


def patched(patch: pytest.MonkeyPatch) -> Decide:
    """Return ``decide`` over figures given by a table instead of a cost model."""

    def ask(
        budget: Budget,
        *,
        figures: Table = FIGURES,
        losses: Mapping[Any, float] = FORMATS,
        pruned_loss: float = PRUNED,
        device: DeviceProfile = COMPUTER,
        metric: float | None = 0.9,
        baseline: Figures | None = None,
        learned: Mapping[str, Figures] | None = None,
        **options: Any,
    ) -> Decision:
        def drop(option: Option, *_: object, **__: object) -> Figure | None:
            return figures[option.name].get("accuracy_drop")

        patch.setattr(search, "predict_drop", drop)
        asked, objective = resolve_budget(budget, can_score=metric is not None)
        return decide(
            [Proposed(option=o, costs=_costs(figures[name])) for name, o in OPTIONS.items()],
            sensitivity(pruned_loss=pruned_loss, points=formats(losses), metric=metric),
            absolute_conditions(
                asked, baseline or {}, device.hard_limits(device.runtime_for("tflite"))
            ),
            objective,
            recovers=True,
            learned={OPTIONS[name]: known for name, known in (learned or {}).items()},
            **options,
        )

    return ask


def _costs(figures: Figures) -> Figures:
    return {name: figure for name, figure in figures.items() if name != "accuracy_drop"}


@pytest.fixture
def deciding(monkeypatch: pytest.MonkeyPatch) -> Decide:
    return patched(monkeypatch)


def chosen(decision: Decision) -> str | None:
    return decision.chosen.option.name if decision.chosen else None


@pytest.mark.parametrize(
    ("latency_ms", "wanted"),
    [
        (33.0, "fp32"),
        (32.0, "fp32"),  # its upper end exactly
        (31.9, "int8"),
        (15.9, "fp32, pruned 50 %"),
        (4.1, "int8, pruned 50 %"),
        (3.9, None),
    ],
)
def test_the_least_loss_among_what_fits_by_its_upper_end(
    deciding: Decide, latency_ms: float, wanted: str | None
) -> None:
    decision = deciding(Budget(latency_ms=latency_ms))
    assert chosen(decision) == wanted
    assert decision.objective == "least expected loss"


def test_all_conditions_hold_together(deciding: Decide) -> None:
    # Latency alone would allow the pruned float, size alone the quantized original.
    decision = deciding(Budget(latency_ms=9, size_bytes=250))
    assert chosen(decision) == "int8, pruned 50 %"
    assert chosen(deciding(Budget(latency_ms=9, size_bytes=90))) is None


def test_equal_losses_are_decided_by_latency(deciding: Decide) -> None:
    decision = deciding(Budget(size_bytes=1000), pruned_loss=0.0)
    assert chosen(decision) == "fp32, pruned 50 %"  # int8 loses a little, fp32 is slower


def test_the_losses_of_format_and_widths_add_up(deciding: Decide) -> None:
    decision = deciding(Budget(latency_ms=9))
    assert {a.option.name: a.expected_loss for a in decision.assessments} == pytest.approx(
        {"fp32": 0.0, "int8": 0.1, "fp32, pruned 50 %": 1.0, "int8, pruned 50 %": 1.1}
    )


def test_assessments_are_ranked_and_complete(deciding: Decide) -> None:
    decision = deciding(Budget(latency_ms=9))
    assert [a.option.name for a in decision.assessments] == list(NAMES)
    assert [a.plausible for a in decision.assessments] == [False, False, True, True]


@pytest.mark.parametrize(
    ("latency_ms", "wanted"), [(16.0, "fp32"), (15.9, "int8"), (2.0, "int8, pruned 50 %")]
)
def test_what_will_be_measured_is_judged_by_its_centre(
    deciding: Decide, latency_ms: float, wanted: str
) -> None:
    decision = deciding(Budget(latency_ms=latency_ms), provable={"latency_ms"})
    assert chosen(decision) == wanted


def test_what_will_be_measured_excuses_no_other_figure(deciding: Decide) -> None:
    decision = deciding(Budget(latency_ms=16, size_bytes=700), provable={"latency_ms"})
    assert chosen(decision) == "int8"


@pytest.mark.parametrize(("max_drop", "wanted"), [(0.036, "fp32, pruned 50 %"), (0.034, None)])
def test_a_drop_that_training_may_reduce_is_judged_by_its_lower_end(
    deciding: Decide, max_drop: float, wanted: str | None
) -> None:
    budget = Budget(latency_ms=8, max_drop=max_drop)
    assert chosen(deciding(budget, provable={"accuracy_drop"})) == wanted
    assert chosen(deciding(budget)) is None


def measured(value: float) -> Figures:
    return {"latency_ms": Figure(value=value, standing="measured", low=0.1, high=99.0)}


def test_a_measurement_refutes_a_prediction(deciding: Decide) -> None:
    decision = deciding(Budget(latency_ms=16.5), learned={"int8": measured(17.0)})
    assert chosen(decision) == "fp32, pruned 50 %"


def test_a_measurement_redeems_a_prediction(deciding: Decide) -> None:
    decision = deciding(Budget(latency_ms=10), learned={"int8": measured(9.9)})
    assert chosen(decision) == "int8"


def test_a_measurement_counts_though_a_prediction_would_be_excused(deciding: Decide) -> None:
    refuted = {"int8": measured(8.1)}
    decision = deciding(Budget(latency_ms=8), provable={"latency_ms"}, learned=refuted)
    assert chosen(decision) == "fp32, pruned 50 %"


def test_an_estimate_of_the_compiler_is_no_proof_to_come(deciding: Decide) -> None:
    """Its centre would keep the limit, its upper end does not, and nothing tells more."""
    asked = {"provable": {"latency_ms"}, "learned": {"int8": {"latency_ms": guess(7.9)}}}
    decision = deciding(Budget(latency_ms=8), **asked)
    assert chosen(decision) == "fp32, pruned 50 %"
    kept = deciding(Budget(latency_ms=16), **asked)
    assert {a.option.name: a.plausible for a in kept.assessments}["int8"]


def test_what_was_learned_of_one_option_says_nothing_of_another(deciding: Decide) -> None:
    decision = deciding(Budget(latency_ms=10), learned={"fp32": measured(1.0)})
    assert chosen(decision) == "fp32"
    decision = deciding(Budget(latency_ms=10), learned={"int8, pruned 50 %": measured(1.0)})
    assert chosen(decision) == "fp32, pruned 50 %"


def test_what_was_learned_of_one_figure_leaves_the_others(deciding: Decide) -> None:
    budget = Budget(latency_ms=10, size_bytes=150)
    decision = deciding(budget, learned={"int8": measured(1.0)})
    assert chosen(decision) == "int8, pruned 50 %"


def test_a_learned_drop_is_not_excused_again(deciding: Decide) -> None:
    trained: Figures = {"accuracy_drop": Figure(value=0.05, standing="verified", low=0, high=0.1)}
    decision = deciding(
        Budget(latency_ms=8, max_drop=0.045),
        provable={"accuracy_drop"},
        learned={"fp32, pruned 50 %": trained},
    )
    assert chosen(decision) is None


def test_rounding_that_can_be_repaired_is_not_ruled_out_by_its_drop_but_pruning_is(
    deciding: Decide,
) -> None:
    """int8 may come back to what float keeps; half of the channels do not come back by that."""
    collapsed = {**FIGURES, "int8": {**FIGURES["int8"], "accuracy_drop": drop(0.5)}}
    asked = {"figures": collapsed, "provable": {"accuracy_drop", "latency_ms"}}
    budget = Budget(latency_ms=8, max_drop=0.02)
    assert chosen(deciding(budget, **asked)) is None
    assert chosen(deciding(budget, repairs=True, **asked)) == "int8"
    known: Figures = {"accuracy_drop": drop(0.5)}
    again = deciding(budget, repairs=True, learned={"int8": known}, **asked)
    assert chosen(again) is None


def test_nothing_fits_and_the_nearest_is_told(deciding: Decide) -> None:
    decision = deciding(Budget(latency_ms=3.0))
    assert decision.chosen is None
    assert decision.nearest.option.name == "int8, pruned 50 %"
    assert decision.nearest.worst_excess == pytest.approx(4 / 3)
    [row] = decision.feasibility
    assert (row.figure, row.limit) == ("latency_ms", 3.0)
    assert (row.smallest, row.smallest_option) == (4.0, "int8, pruned 50 %")
    assert row.original == 32.0
    assert not row.reachable


def test_the_nearest_weighs_all_conditions(deciding: Decide) -> None:
    # The quantized and pruned one is fastest and smallest by far, and loses far too much.
    figures = {**FIGURES, "int8, pruned 50 %": {**FIGURES["int8, pruned 50 %"]}}
    figures["int8, pruned 50 %"]["accuracy_drop"] = drop(0.8)
    decision = deciding(Budget(latency_ms=7, size_bytes=350, max_drop=0.02), figures=figures)
    assert decision.chosen is None
    assert decision.nearest.option.name == "fp32, pruned 50 %"


def test_each_alone_and_not_together_is_told_apart(deciding: Decide) -> None:
    decision = deciding(Budget(latency_ms=9, size_bytes=150, max_drop=0.02))
    assert decision.chosen is None
    reachable = {row.figure: row.reachable for row in decision.feasibility}
    assert reachable == {"latency_ms": True, "size_bytes": True, "accuracy_drop": True}
    beyond = deciding(Budget(latency_ms=9, size_bytes=99))
    reachable = {row.figure: row.reachable for row in beyond.feasibility}
    assert reachable == {"latency_ms": True, "size_bytes": False}


def test_what_the_centre_reaches_is_reachable_where_it_will_be_measured(deciding: Decide) -> None:
    budget = Budget(latency_ms=3, size_bytes=50)
    decision = deciding(budget, provable={"latency_ms"})
    assert decision.chosen is None
    reachable = {row.figure: row.reachable for row in decision.feasibility}
    assert reachable == {"latency_ms": True, "size_bytes": False}


def test_a_figure_nobody_knows_is_never_met(deciding: Decide) -> None:
    decision = deciding(Budget(energy_mj=1e9))
    assert decision.chosen is None
    assert decision.nearest.worst_excess == math.inf
    [row] = decision.feasibility
    assert (row.smallest, row.smallest_option, row.original) == (None, None, None)
    assert not row.reachable


def test_a_microcontrollers_memory_limits_without_being_asked(deciding: Decide) -> None:
    sizes = dict(zip(NAMES, (400_000, 100_001, 200_000, 49_000), strict=True))
    figures = {
        name: {
            "latency_ms": guess(1),
            "memory_bytes": guess(20_000, 1.0),
            "flash_bytes": guess(size, 1.0),
            "accuracy_drop": drop(0.0),
        }
        for name, size in sizes.items()
    }
    # 150 kB of flash less 50 kB of runtime.
    assert chosen(deciding(Budget(), figures=figures, device=MICRO)) == "int8, pruned 50 %"
    figures["int8"]["flash_bytes"] = guess(100_000, 1.0)
    assert chosen(deciding(Budget(), figures=figures, device=MICRO)) == "int8"
    # 64 kB of RAM less 24 kB of runtime.
    figures["int8"]["memory_bytes"] = guess(40_001, 1.0)
    decision = deciding(Budget(latency_ms=9), figures=figures, device=MICRO)
    assert chosen(decision) == "int8, pruned 50 %"
    assert {c.figure: c.asked_by for c in decision.conditions} == {
        "latency_ms": "budget",
        "memory_bytes": "device",
        "flash_bytes": "device",
    }


def test_a_budget_cannot_loosen_the_devices_limits(deciding: Decide) -> None:
    figures = {
        name: {"latency_ms": guess(1), "memory_bytes": guess(50_000, 1.0), "flash_bytes": guess(1)}
        for name in NAMES
    }
    budget = Budget(memory_bytes=60_000)
    assert chosen(deciding(budget, figures=figures)) is not None
    assert chosen(deciding(budget, figures=figures, device=MICRO)) is None


def test_no_condition_means_the_fastest_within_one_point(deciding: Decide) -> None:
    decision = deciding(Budget())
    assert decision.objective == "least latency"
    assert [(c.figure, c.limit) for c in decision.conditions] == [("accuracy_drop", 0.01)]
    assert chosen(decision) == "fp32"  # int8 may lose 1.5 points
    surer = {**FIGURES, "int8": {**FIGURES["int8"], "accuracy_drop": drop(0.004)}}
    assert chosen(deciding(Budget(), figures=surer)) == "int8"


def test_a_drop_alone_means_the_fastest_within_it(deciding: Decide) -> None:
    decision = deciding(Budget(max_drop=0.05))
    assert decision.objective == "least latency"
    assert chosen(decision) == "fp32, pruned 50 %"
    assert chosen(deciding(Budget(max_drop=0.066))) == "int8, pruned 50 %"


def test_equal_latencies_are_then_decided_by_loss(deciding: Decide) -> None:
    figures = {name: {**FIGURES[name], "latency_ms": guess(4)} for name in NAMES}
    assert chosen(deciding(Budget(max_drop=1.0), figures=figures)) == "fp32"


def test_without_a_metric_and_a_limit_nothing_is_changed(deciding: Decide) -> None:
    unscored: dict[str, dict[FigureName, Figure]] = {
        name: {k: v for k, v in figures.items() if k != "accuracy_drop"}
        for name, figures in FIGURES.items()
    }
    decision = deciding(Budget(), figures=unscored, metric=None)
    assert chosen(decision) == "fp32"
    assert decision.conditions == ()
    assert decision.nearest.worst_excess == 0.0


def test_a_drop_that_nobody_can_score_is_a_usage_error(deciding: Decide) -> None:
    with pytest.raises(UsageError, match="evaluate"):
        deciding(Budget(max_drop=0.01), metric=None)
    with pytest.raises(UsageError, match="evaluate"):
        deciding(Budget(max_drop=0.01, latency_ms=5), metric=None)


def test_a_relative_limit_is_one_of_the_baseline(deciding: Decide) -> None:
    baseline: Figures = {"latency_ms": Figure(value=32.0, standing="measured")}
    budget = Budget(latency_ms=Relative(fraction=0.5))
    assert chosen(deciding(budget, baseline=baseline)) == "int8"
    with pytest.raises(UsageError, match="not known"):
        deciding(budget)


def test_a_loss_that_is_as_large_as_can_be_is_taken_last(deciding: Decide) -> None:
    broken = {"fp32": 0.0, "int8": sys.float_info.max}
    assert chosen(deciding(Budget(latency_ms=17), losses=broken)) == "fp32, pruned 50 %"
    assert chosen(deciding(Budget(latency_ms=7), losses=broken)) == "int8, pruned 50 %"


POSITIVE = st.floats(0.01, 100)
LIMIT = st.none() | POSITIVE


@given(
    st.lists(st.tuples(POSITIVE, POSITIVE), min_size=4, max_size=4),
    st.tuples(POSITIVE, POSITIVE, POSITIVE),
    LIMIT,
    LIMIT,
    st.sets(st.sampled_from(["latency_ms", "size_bytes"])),
)
def test_any_decision_is_the_best_there_is(
    rows: list[tuple[float, float]],
    lost: tuple[float, float, float],
    latency_ms: float | None,
    size_bytes: float | None,
    provable: set[FigureName],
) -> None:
    if latency_ms is None and size_bytes is None:
        return
    losses, pruned_loss = dict(zip(SCHEMES, lost, strict=False)), lost[2]
    figures: dict[str, dict[FigureName, Figure]] = {
        name: {"latency_ms": guess(row[0]), "size_bytes": guess(row[1])}
        for name, row in zip(NAMES, rows, strict=True)
    }
    limits: dict[FigureName, float | None] = {"latency_ms": latency_ms, "size_bytes": size_bytes}

    def fits(name: str) -> bool:
        return all(
            limit is None or figures[name][key].value * (1 if key in provable else 2) <= limit
            for key, limit in limits.items()
        )

    fitting = [name for name in NAMES if fits(name)]
    with pytest.MonkeyPatch.context() as patch:
        decision = patched(patch)(
            Budget(latency_ms=latency_ms, size_bytes=size_bytes),
            figures=figures,
            losses=losses,
            pruned_loss=pruned_loss,
            provable=provable,
        )

    def rank(name: str) -> tuple[float, float, str]:
        loss = losses[OPTIONS[name].scheme] + (pruned_loss if "pruned" in name else 0.0)
        return loss, figures[name]["latency_ms"].value, name

    assert chosen(decision) == min(fitting, key=rank, default=None)
    excess = {
        name: max(2 * figures[name][key].value / limit for key, limit in limits.items() if limit)
        for name in NAMES
    }
    assert excess[decision.nearest.option.name] == pytest.approx(min(excess.values()))
