"""Layers that leave their network's scheme: which can, what it costs, and what it wins."""

from __future__ import annotations

from typing import get_args

import pytest
from lopsided_task import RUINED, lopsided

from edgesdk.cost.latency import predict_latency
from edgesdk.device import Runtime
from edgesdk.device_files import load_device
from edgesdk.graph import OpGraph
from edgesdk.planner.departures import (
    WORTH_WIDENING,
    Departure,
    departure_costs,
    kept_departures,
    planned_mixes,
    possible_departures,
    rank_of,
)
from edgesdk.planner.options import option_for
from edgesdk.planner.prediction import predict_costs, predict_drop
from edgesdk.planner.proposals import Proposer
from edgesdk.planner.sensing import measure_sensitivity
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.progress import Silent
from edgesdk.scheme import Scheme
from edgesdk.task_check import output_specs
from edgesdk.trace import trace
from edgesdk.workers.here import Here
from edgesdk.workers.ledger import Ledger

BASE: Scheme = "int8_dynamic"
SCHEMES: tuple[Scheme, ...] = ("fp32", BASE, "int4_dynamic")
LAYERS = ("0", "2", "4")


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return load_device("host").runtime_for("executorch")


@pytest.fixture(scope="module")
def graph() -> OpGraph:
    task = lopsided()
    return trace(task.model, task.example_inputs, name=task.name)


@pytest.fixture(scope="module")
def found(graph: OpGraph) -> Sensitivity:
    task = lopsided()
    return measure_sensitivity(
        task,
        graph,
        output_specs(task),
        target="executorch",
        schemes=SCHEMES,
        mixes={BASE: ("fp32", "int4_dynamic")},
        channel_multiple=8,
        progress=Silent(),
        workers=Here(),
        ledger=Ledger(None),
    )


def test_what_is_planned_leaves_eight_bits_for_float_or_four() -> None:
    every = get_args(Scheme)
    mixes = dict.fromkeys(every, every)
    planned = planned_mixes(mixes, every)
    assert planned == {
        "int8_dynamic": ("fp32", "fp16", "int4_dynamic", "w4", "lut4", "lut4_sparse50"),
        "w8": ("fp32", "fp16", "int4_dynamic", "w4", "lut4", "lut4_sparse50"),
    }
    assert planned_mixes(mixes, ("fp32", "int8_dynamic")) == {"int8_dynamic": ("fp32",)}
    assert planned_mixes(mixes, ("int8_dynamic",)) == {}
    assert planned_mixes({}, every) == {}


def test_only_layers_that_can_have_both_schemes_depart(graph: OpGraph) -> None:
    to_float = possible_departures(graph, "executorch", BASE, ("fp32",))
    assert to_float == tuple(Departure(layer, "fp32") for layer in LAYERS)
    # The first layer has 8 inputs, which do not divide into int4's groups of 32.
    to_int4 = possible_departures(graph, "executorch", BASE, ("int4_dynamic",))
    assert [departure.layer for departure in to_int4] == ["2", "4"]


def test_the_tables_tell_what_the_whole_network_costs(found: Sensitivity, runtime: Runtime) -> None:
    model = found.widths
    departures = possible_departures(model.graph, "executorch", BASE, ("fp32", "int4_dynamic"))
    smallest = tuple(row[0] for row in found.choices)
    for cost in departure_costs(model, found.choices, runtime, BASE, departures):
        for widths, place in ((model.full, -1), (smallest, 0)):
            if kept_departures(model, widths, "executorch", (cost.departure,)) == ():
                continue
            at = model.at(widths)
            stays, leaves = (
                predict_latency(at, runtime, BASE, layers).total.value
                for layers in ({}, dict([cost.departure]))
            )
            entry = (place,) * len(cost.groups)
            assert cost.latency_ms[entry] == pytest.approx(leaves - stays, rel=0.02, abs=1e-7)
    sizes = {
        layers: predict_costs(model.graph, runtime, BASE, dict(layers))["size_bytes"].value
        for layers in ((), (Departure("2", "fp32"),))
    }
    [wide] = departure_costs(model, found.choices, runtime, BASE, (Departure("2", "fp32"),))
    grown = sizes[Departure("2", "fp32"),] - sizes[()]
    assert float(wide.weight_bytes[-1, -1]) == pytest.approx(grown, rel=0.05)


def test_a_layer_that_pruning_takes_below_a_group_stays(found: Sensitivity) -> None:
    model = found.widths
    departures = (Departure("4", "int4_dynamic"), Departure("2", "int4_dynamic"))
    assert kept_departures(model, model.full, "executorch", departures) == departures[::-1]
    narrow = tuple(
        40 if layer == "2" else full for layer, full in zip(model.groups, model.full, strict=True)
    )
    assert kept_departures(model, narrow, "executorch", departures) == departures[1:]


def test_the_layer_that_is_ruined_wins_most_by_leaving(found: Sensitivity) -> None:
    whole = found.format(BASE).loss
    wins = {layer: -found.departure_loss(BASE, Departure(layer, "fp32")) for layer in LAYERS}
    assert whole > 0.1
    assert wins[RUINED] > 0.9 * whole
    everything = tuple(Departure(layer, "fp32") for layer in LAYERS)
    assert found.format_loss(BASE, everything) == pytest.approx(0.0, abs=1e-9)
    assert found.format_loss(BASE, everything[:0]) == whole


def test_the_drop_expected_lies_between_what_was_scored(found: Sensitivity) -> None:
    full = found.widths.full
    ruined, repaired = (
        predict_drop(option_for(full, full, BASE, departures), found, recovers=False)
        for departures in ((), (Departure(RUINED, "fp32"),))
    )
    assert ruined is not None
    assert repaired is not None
    assert ruined.value > 0.2
    assert 0 <= repaired.value < 0.02
    assert repaired.low is not None
    assert repaired.low <= 0.0


def test_the_program_repairs_it_and_no_more(found: Sensitivity, runtime: Runtime) -> None:
    proposer = Proposer(sensitivity=found, runtimes={"": runtime}, schemes=SCHEMES)
    proposed = proposer.propose({"": runtime}, (), frozenset())
    best = min((item.option for item in proposed if item.option.scheme == BASE), key=found.rank)
    assert best.departures == (Departure(RUINED, "fp32"),)
    assert best.name.startswith("int8_dynamic with 1 layer fp32")


def test_int16_activations_have_to_win_what_shows() -> None:
    assert rank_of(0.0, "w8a16") == WORTH_WIDENING
    assert rank_of(0.0005, "int8") < rank_of(0.0, "w8a16") < rank_of(0.002, "int8")
