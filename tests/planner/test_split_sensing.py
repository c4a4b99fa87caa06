"""What splits lose, measured: alone and together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from blobs_task import blobs

from edgesdk.compress.factorize import factorized
from edgesdk.compress.samples import sample_inputs
from edgesdk.low_rank import LayerSplit
from edgesdk.planner.divergence import measure_divergence, run_batches
from edgesdk.planner.sensing import measure_sensitivity
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.split_sensing import measure_splits
from edgesdk.planner.splits import possible_splits
from edgesdk.progress import Silent
from edgesdk.task_check import output_specs
from edgesdk.trace import trace
from edgesdk.workers.here import Here
from edgesdk.workers.ledger import Ledger


@pytest.fixture(scope="module")
def known() -> Sensitivity:
    task = blobs()
    return measure_sensitivity(
        task,
        trace(task.model, task.example_inputs, name=task.name),
        output_specs(task),
        target="tflite",
        schemes=("fp32",),
        mixes={},
        channel_multiple=4,
        progress=Silent(),
        workers=Here(),
        ledger=Ledger(None),
    )


@pytest.fixture(scope="module")
def found(known: Sensitivity) -> Sensitivity:
    task, splits = blobs(), possible_splits(known.widths.graph, 4)
    return measure_splits(task, output_specs(task), known, splits, progress=Silent())


def test_every_split_is_measured_and_a_lower_rank_never_loses_less(found: Sensitivity) -> None:
    assert found.looked_at == possible_splits(found.widths.graph, 4)
    assert found.looked_at == (
        LayerSplit("0", 4), LayerSplit("2", 4), LayerSplit("2", 8), LayerSplit("2", 20),
        LayerSplit("2", 32),
    )  # fmt: skip
    losses = [point.loss for point in found.splits if point.layer == "2"]
    assert losses == sorted(losses, reverse=True)
    assert all(loss >= 0 for loss in losses)


def test_a_loss_is_that_of_the_network_that_compress_makes(found: Sensitivity) -> None:
    task = blobs()
    _, batches = sample_inputs(task)
    original = run_batches(task.model.eval(), batches)
    for split in (LayerSplit("0", 4), LayerSplit("2", 32)):
        made = factorized(task.model, task.example_inputs, dict([split]), batches).eval()
        moved = measure_divergence(original, run_batches(made, batches), output_specs(task))
        [point] = [p for p in found.splits if (p.layer, p.rank) == split]
        assert point.loss == pytest.approx(moved.loss, rel=1e-4, abs=1e-9)


def test_all_layers_are_split_together_at_each_level(
    known: Sensitivity, found: Sensitivity
) -> None:
    joint = found.joint[len(known.joint) :]
    assert [dict(point.splits) for point in joint] == [
        {"0": 4, "2": 4}, {"0": 4, "2": 8}, {"0": 4, "2": 20}, {"0": 4, "2": 32},
    ]  # fmt: skip
    for point in joint:
        assert point.sum == pytest.approx(
            sum(p.loss for p in found.splits if (p.layer, p.rank) in point.splits)
        )
        assert point.drop is not None
        assert point.widths == found.widths.full
    assert found.joint_scale == known.joint_scale


def test_the_model_and_without_splits_everything_stay_as_they_are(known: Sensitivity) -> None:
    task = blobs()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    splits = (LayerSplit("2", 8),)
    measure_splits(task, output_specs(task), known, splits, progress=Silent())
    assert all(torch.equal(before[name], value) for name, value in task.model.state_dict().items())
    assert measure_splits(task, output_specs(task), known, (), progress=Silent()) == known


def test_without_data_the_weights_decide(known: Sensitivity, found: Sensitivity) -> None:
    """One example shows too little of what a layer answers."""
    bare = replace(blobs(), calibration=None, training=None)
    split = LayerSplit("2", 8)
    guessed = measure_splits(bare, output_specs(bare), known, (split,), progress=Silent())
    made = factorized(bare.model, bare.example_inputs, dict([split]), ()).eval()
    example = [bare.example_inputs]
    moved = measure_divergence(
        run_batches(bare.model.eval(), example), run_batches(made, example), output_specs(bare)
    )
    assert guessed.splits[0].loss == pytest.approx(moved.loss, rel=1e-4, abs=1e-9)
