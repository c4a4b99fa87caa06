"""What a task's sensitivities say, measured on a network that trains in a second."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from blobs_task import blobs
from shortcuts import IMAGES, resnet
from torch import nn

from edgesdk.compress.depth import shortened
from edgesdk.compress.prune import find_groups
from edgesdk.compress.recalibrate import observe_norms, recalibrate
from edgesdk.compress.removal import disconnected
from edgesdk.planner.divergence import measure_divergence, run_batches
from edgesdk.planner.options import option_for
from edgesdk.planner.sensing import measure_sensitivity
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.progress import Silent
from edgesdk.task import Task
from edgesdk.task_check import calibration_batches, output_specs
from edgesdk.trace import trace
from edgesdk.workers.here import Here
from edgesdk.workers.ledger import Ledger


def measured(task: Task) -> Sensitivity:
    graph = trace(task.model, task.example_inputs, name=task.name)
    return measure_sensitivity(
        task,
        graph,
        output_specs(task),
        target="executorch",
        schemes=("fp32", "fp16"),
        mixes={},
        channel_multiple=4,
        progress=Silent(),
        workers=Here(),
        ledger=Ledger(None),
    )


@pytest.fixture(scope="module")
def found() -> Sensitivity:
    return measured(blobs())


def test_a_narrower_group_never_loses_less(found: Sensitivity) -> None:
    assert found.curves
    for curve in found.curves:
        assert curve.losses[-1] == 0.0
        assert all(a >= b for a, b in itertools.pairwise(curve.losses))
        assert curve.losses[0] > 0


def test_what_is_removed_is_nested_and_never_everything(found: Sensitivity) -> None:
    for curve in found.curves:
        removed = [set(curve.removed(kept)) for kept in curve.choices]
        assert [len(r) for r in removed] == [curve.choices[-1] - kept for kept in curve.choices]
        assert all(more >= less for more, less in itertools.pairwise(removed))


def test_networks_pruned_everywhere_show_how_losses_add_up(found: Sensitivity) -> None:
    sums = [point.sum for point in found.joint]
    assert len(sums) >= 2
    assert sums == sorted(sums)
    assert found.joint_scale > 0


def test_the_order_is_that_of_importance(found: Sensitivity) -> None:
    """The channels that the curve keeps longest matter more than those that go first."""
    task, curve = blobs(), found.curves[0]
    layer = dict(task.model.named_modules())[curve.layer]
    assert isinstance(layer, nn.Linear)
    half = len(curve.order) // 2
    first, last = (
        [c for unit in part for c in unit] for part in (curve.order[:half], curve.order[half:])
    )

    def loss_without(channels: list[int]) -> float:
        changed = blobs().model
        target = dict(changed.named_modules())[curve.layer]
        assert isinstance(target, nn.Linear)
        with torch.no_grad():
            target.weight[channels] = 0
            target.bias[channels] = 0
        assert task.evaluate is not None
        return task.evaluate(changed, "validation")

    assert loss_without(first) > loss_without(last)


def test_a_metric_that_repeats_itself_has_no_noise(found: Sensitivity) -> None:
    assert found.noise == 0.0
    assert not any("noise" in note for note in found.notes)


def noisy(scores: list[float]) -> Callable[..., float]:
    given = itertools.cycle(scores)
    return lambda predict, split: next(given)


def test_a_noisy_metric_is_found_and_named() -> None:
    found = measured(replace(blobs(), evaluate=noisy([0.9, 0.88, 0.9, 0.91, 0.9])))
    assert found.noise == pytest.approx(0.03)
    assert any("2.00 %" in note or "3.00 %" in note for note in found.notes)


def test_a_score_of_nothing_is_a_score() -> None:
    assert measured(replace(blobs(), evaluate=noisy([0.0]))).noise == 0.0


def test_without_a_metric_there_is_no_drop() -> None:
    found = measured(replace(blobs(), evaluate=None))
    assert (found.metric, found.noise) == (None, 0.0)
    assert found.drop(option_for(found.widths.full, found.widths.full, "fp16")) is None


def test_without_data_channels_go_by_magnitude() -> None:
    found = measured(replace(blobs(), training=None, calibration=None, evaluate=None))
    assert (found.importance, found.inputs) == ("magnitude", "example")


def test_a_network_of_one_unprunable_group_says_so() -> None:
    task = replace(
        blobs(), model=nn.Sequential(nn.Linear(8, 4)).eval(), training=None, calibration=None
    )
    found = measured(task)
    assert found.curves == ()
    assert any("prun" in note for note in found.notes)


def test_a_curve_is_what_was_measured_at_each_width(found: Sensitivity) -> None:
    """The divergence with the least important channels disconnected, width by width."""
    task = blobs()
    groups = {group.layer: group for group in find_groups(task.model, task.example_inputs)}
    batches = list(calibration_batches(task))
    original = run_batches(task.model.eval(), batches)
    for curve in found.curves:
        measured = [
            measure_divergence(
                original,
                run_batches(
                    disconnected(task.model, [(groups[curve.layer], curve.removed(kept))]), batches
                ),
                output_specs(task),
            ).loss
            for kept in curve.choices
        ]
        rising = list(itertools.accumulate(reversed(measured), max))[::-1]
        assert curve.losses == pytest.approx(rising, rel=1e-6, abs=1e-12)


@pytest.fixture(scope="module")
def deep() -> Task:
    """Four images told apart, without training, by a network whose blocks correct little."""
    inputs = torch.randn(32, 3, 12, 12, generator=torch.Generator().manual_seed(5))
    model = resnet((3, 2), (8, 16))
    return replace(
        blobs(),
        model=model,
        example_inputs=IMAGES,
        calibration=lambda: iter([(inputs,)]),
        training=None,
        evaluate=None,
    )


def test_blocks_are_measured_alone_and_once_cheaper_ones_are_gone(deep: Task) -> None:
    found = measured(deep)
    assert found.moves_batch_norms
    names = [point.block for point in found.blocks]
    assert names == ["stages.0.0", "stages.0.1", "stages.0.2", "stages.1.1"]
    (batch,) = calibration_batches(deep)
    original = run_batches(deep.model.eval(), [batch])
    reference = observe_norms(deep.model, [batch])

    def loss_without(gone: Sequence[str]) -> float:
        changed = recalibrate(shortened(deep.model, gone), reference)
        outputs = run_batches(changed, [batch])
        return measure_divergence(original, outputs, output_specs(deep)).loss

    alone = {name: loss_without([name]) for name in names}
    order = sorted(names, key=lambda name: alone[name])
    so_far = [loss_without(order[:n]) for n in range(len(order) + 1)]
    highest = list(itertools.accumulate(so_far, max))
    wanted = {
        name: max(alone[name], after - before)
        for name, before, after in zip(order, highest, so_far[1:], strict=False)
    }
    assert {p.block: p.loss for p in found.blocks} == pytest.approx(wanted, rel=1e-5)
    points = [point for point in found.joint if point.removed_blocks]
    assert [len(point.removed_blocks) for point in points] == [1, 2, 3, 4]
    for point in points:
        assert point.loss == pytest.approx(so_far[len(point.removed_blocks)], rel=1e-5)
        assert point.sum >= point.loss * (1 - 1e-6)


def test_a_network_without_shortcuts_has_no_blocks(found: Sensitivity) -> None:
    assert found.blocks == ()
