import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recovery_nets import Depthwise, Residual, images, run, seen
from torch import nn

from edgesdk.compress.equalize import equalize
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.plan import Equalize


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), spread=st.floats(0, 2))
def test_the_function_stays_the_same(seed: int, spread: float) -> None:
    net = seen(Depthwise(), seed=seed, spread=spread).double()
    equal = equalize(net, (images(1).double(),), Equalize())
    wanted, found = run(net, images(4).double()), run(equal.module, images(4).double())
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
    assert len(equal.pairs) == 4


def test_pairs_reach_through_depthwise_layers_pooling_and_flatten() -> None:
    equal = equalize(seen(Depthwise()), (images(1),), Equalize())
    assert equal.pairs == (
        ("stem.0", "depth.0"),
        ("depth.0", "point.0"),
        ("point.0", "hidden"),
        ("hidden", "last"),
    )
    assert equal.left_out == {"last": "it computes an output of the model"}


def test_ranges_on_both_sides_are_equal_then() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    with torch.no_grad():
        net[0].weight.mul_(torch.logspace(0, 1, 8)[:, None, None, None])  # type: ignore[operator]
        net[0].bias.zero_()  # type: ignore[union-attr, operator]
    found = equalize(net, (images(1),), Equalize()).module
    rows = found.get_parameter("0.weight").abs().amax((1, 2, 3))
    columns = found.get_parameter("2.weight").abs().amax((0, 2, 3))
    assert torch.allclose(rows, columns, rtol=1e-2)


def test_no_channel_is_stretched_beyond_the_widest() -> None:
    """A dead channel with a bias: equal ranges would make its constant a thousand times larger."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        net[0].weight[0] *= 1e-6  # type: ignore[operator, index]
        net[0].bias.fill_(0.5)  # type: ignore[union-attr, operator]
    before = run(net[0], images(8)).relu().max()
    equal = equalize(net, (images(1),), Equalize()).module
    after = run(equal.get_submodule("0"), images(8)).relu().max()
    assert float(after) < 2 * float(before)
    assert torch.allclose(run(equal, images(4)), run(net, images(4)), atol=1e-5)


def test_relu6_is_left_out_by_name() -> None:
    net = seen(Depthwise(nn.ReLU6))
    equal = equalize(net, (images(1),), Equalize())
    assert not equal.pairs
    assert "would move" in equal.left_out["stem.0"]
    folded = fold_batch_norms(net, (images(1),)).state_dict()
    assert all(torch.equal(folded[n], v) for n, v in equal.module.state_dict().items())


def test_what_a_sum_reads_is_left_out_and_a_grouped_reader_is_not() -> None:
    equal = equalize(seen(Residual()), (images(1),), Equalize())
    assert equal.pairs == ()
    assert "operators read" in equal.left_out["first.0"]
    assert equal.left_out["second.0"] == "add is behind it"
    grouped = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2)).double()
    found = equalize(grouped, (images(1).double(),), Equalize())
    assert found.pairs == (("0", "2"),)
    inputs = images(3).double()
    assert torch.allclose(run(found.module, inputs), run(grouped, inputs), rtol=1e-9)


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Hardswish])
def test_other_activations_keep_layers_apart(activation: type[nn.Module]) -> None:
    equal = equalize(seen(Depthwise(activation)), (images(1),), Equalize())
    assert equal.pairs == ()
