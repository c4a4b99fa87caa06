"""Batch norms moved with what pruning moved."""

from __future__ import annotations

import pytest
import torch
from recovery_nets import Depthwise, Residual, calibration, images, run, seen
from torch import Tensor, nn

from edgesdk.compress.channel_groups import ChannelGroup
from edgesdk.compress.prune import find_groups, prune
from edgesdk.compress.recalibrate import observe_norms, recalibrate, recalibrated_for
from edgesdk.compress.removal import disconnected
from edgesdk.errors import UsageError
from edgesdk.plan import PrunedGroup

NETWORKS = pytest.mark.parametrize("build", [Depthwise, Residual])


def half(group: ChannelGroup) -> list[int]:
    return sorted(channel for unit in group.units[: len(group.units) // 2] for channel in unit)


def half_disconnected(net: nn.Module) -> nn.Module:
    example = images(1).to(next(net.parameters()).dtype)
    groups = find_groups(net, (example,))
    return disconnected(net, [(group, half(group)) for group in groups])


def moments(net: nn.Module, name: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of what a batch norm reads."""
    read: list[Tensor] = []
    handle = net.get_submodule(name).register_forward_pre_hook(lambda _m, x: read.append(x[0]))
    with torch.no_grad():
        net(inputs)
    handle.remove()
    variance, mean = torch.var_mean(read[0], (0, 2, 3), correction=0)
    return mean, variance


@NETWORKS
def test_where_nothing_was_changed_nothing_moves(build: type[nn.Module]) -> None:
    net = seen(build())
    again = recalibrate(net, observe_norms(net, calibration()))
    for name, value in net.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


@NETWORKS
def test_every_norm_follows_what_its_input_did(build: type[nn.Module]) -> None:
    """With all inputs in one batch, each norm is as far from its input as it was before."""
    net = seen(build()).double()
    inputs = images(32).double()
    changed = half_disconnected(net)
    found = recalibrate(changed, observe_norms(net, [(inputs,)]))
    names = [name for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert names
    for name in names:
        trained, norm = net.get_submodule(name), found.get_submodule(name)
        before, after = moments(net, name, inputs), moments(found, name, inputs)
        torch.testing.assert_close(
            after[0] - norm.running_mean, before[0] - trained.running_mean, atol=1e-9, rtol=1e-6
        )
        torch.testing.assert_close(
            (after[1] + norm.eps) / norm.running_var,
            (before[1] + trained.eps) / trained.running_var,
        )


@NETWORKS
def test_weights_and_the_networks_given_stay(build: type[nn.Module]) -> None:
    net = seen(build())
    changed = half_disconnected(net)
    states = [{k: v.clone() for k, v in m.state_dict().items()} for m in (net, changed)]
    found = recalibrate(changed, observe_norms(net, calibration()))
    for module, state in zip((net, changed), states, strict=True):
        assert all(torch.equal(module.state_dict()[name], value) for name, value in state.items())
    for (name, before), after in zip(changed.named_parameters(), found.parameters(), strict=True):
        assert torch.equal(before, after), name
    assert not found.training


def test_a_shift_of_an_input_is_taken_back_by_the_norm_that_reads_it() -> None:
    """Given a bias that moves every channel, Result the network as it was."""
    net = seen(Residual())
    changed = seen(Residual())
    first = changed.second[0]
    first.bias = nn.Parameter(torch.arange(8.0))
    inputs = images(8)
    assert not torch.allclose(run(changed, inputs), run(net, inputs), atol=0.1)
    found = recalibrate(changed, observe_norms(net, [(inputs,)]))
    torch.testing.assert_close(run(found, inputs), run(net, inputs), atol=1e-4, rtol=1e-4)


class Twice(nn.Module):
    """A norm that reads two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.norm(x) + 1)
        return y


def test_a_norm_that_reads_several_tensors_stays() -> None:
    net, other = seen(Twice()), seen(Twice(), seed=5)
    found = recalibrate(other, observe_norms(net, calibration()))
    for name, value in other.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_a_network_without_norms_is_not_run() -> None:
    net = nn.Linear(3, 2)
    found = recalibrate(net, observe_norms(net, [(torch.zeros(1, 7),)]))
    assert torch.equal(found.weight, net.weight)


@NETWORKS
def test_pruning_what_was_recalibrated_computes_what_disconnecting_does(
    build: type[nn.Module],
) -> None:
    net = seen(build())
    groups = [
        PrunedGroup(layer=group.layer, width_before=group.width, removed=tuple(half(group)))
        for group in find_groups(net, (images(1),))
    ]
    whole = recalibrated_for(net, (images(1),), groups, calibration())
    found = run(prune(whole, (images(1),), groups), images(4))
    wanted = recalibrate(half_disconnected(net), observe_norms(net, calibration()))
    torch.testing.assert_close(found, run(wanted, images(4)), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, run(prune(net, (images(1),), groups), images(4)), atol=1e-2)


@pytest.mark.parametrize(
    "groups",
    [
        [PrunedGroup(layer="nowhere", width_before=8, removed=(0,))],
        [PrunedGroup(layer="first.0", width_before=9, removed=(0,))],
        [PrunedGroup(layer="first.0", width_before=8, removed=(8,))],
        [PrunedGroup(layer="first.0", width_before=8, removed=tuple(range(8)))],
        [PrunedGroup(layer="first.0", width_before=8, removed=(index,)) for index in (0, 1)],
    ],
    ids=["unknown layer", "another width", "out of range", "every channel", "twice"],
)
def test_groups_of_another_model_are_refused_as_by_pruning(groups: list[PrunedGroup]) -> None:
    net = seen(Residual())
    with pytest.raises(UsageError) as pruning:
        prune(net, (images(1),), groups)
    with pytest.raises(UsageError) as recalibrating:
        recalibrated_for(net, (images(1),), groups, calibration())
    assert str(recalibrating.value) == str(pruning.value)


def test_inputs_of_several_shapes_are_taken() -> None:
    net = seen(Residual())
    batches = [(images(2),), (images(3),), (torch.randn(2, 3, 6, 6),)]
    found = recalibrate(half_disconnected(net), observe_norms(net, batches))
    assert not torch.equal(found.state_dict()["second.1.running_mean"], torch.zeros(8))
