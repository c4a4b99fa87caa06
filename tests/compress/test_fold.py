import pytest
import torch
from recovery_nets import Depthwise, Residual, images, run, seen
from torch import Tensor, nn

from edgesdk.compress.fold import fold_batch_norms
from edgesdk.errors import UnsupportedModel


def norms(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("build", [Depthwise, Residual])
def test_the_folded_network_computes_the_same(build: type[nn.Module]) -> None:
    net = seen(build()).double()
    folded = fold_batch_norms(net, (images(1).double(),))
    inputs = images(5).double()
    assert not norms(folded)
    assert norms(net)
    assert torch.allclose(run(folded, inputs), run(net, inputs), rtol=1e-12, atol=1e-12)


def test_every_layer_has_a_bias_then_and_folding_again_changes_nothing() -> None:
    once = fold_batch_norms(seen(Depthwise()), (images(1),))
    layers = [m for m in once.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert all(layer.bias is not None for layer in layers)
    twice = fold_batch_norms(once, (images(1),)).state_dict()
    assert all(torch.equal(twice[name], value) for name, value in once.state_dict().items())


class Shared(nn.Module):
    """One norm behind two layers, and one whose layer is read by a sum too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.third = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.third(self.norm(self.first(x)) + self.norm(self.second(x)))
        total: Tensor = self.other(y) + y
        return total


def test_a_norm_that_is_not_one_layers_alone_stays() -> None:
    net = seen(Shared())
    folded = fold_batch_norms(net, (images(1),))
    assert len(norms(folded)) == 2
    assert torch.allclose(run(folded, images(3)), run(net, images(3)), atol=1e-5)


class Reading(nn.Module):
    """Reads its norm's weight itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.layer(x))
        return y * getattr(self.norm, "weight", torch.zeros(3)).sum()


def test_a_norm_that_is_read_as_well_as_called_is_not_folded() -> None:
    folded = fold_batch_norms(seen(Reading()), (images(1),))
    assert len(norms(folded)) == 1


class Branching(nn.Module):
    """Computes something else without its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.layer(x))
        return y if isinstance(self.norm, nn.BatchNorm2d) else 2 * y


def test_a_model_that_changes_without_its_norm_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="once its batch norms are folded"):
        fold_batch_norms(seen(Branching()), (images(1),))
