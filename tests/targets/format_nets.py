"""Networks and models that the tests of all targets' number formats share."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgesdk.artifact import size_bytes
from edgesdk.compressed import CompressedModel
from edgesdk.cost.size import predict_size
from edgesdk.parity import sqnr_db
from edgesdk.planner.simulation import simulate
from edgesdk.scheme import Scheme
from edgesdk.target import Emission
from edgesdk.task import InputSpec, OutputSpec
from edgesdk.trace import trace

TOKENS, WIDTH = 8, 64


class Block(nn.Module):
    """A transformer's feed-forward block on ``[N, T, 64]``, with a head that int4 cannot have."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.narrow = nn.Linear(WIDTH, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.query(self.norm(x))
        x = x + torch.softmax(y @ y.mT / 8, -1) @ y
        x = x + self.down(torch.relu(self.up(x)))
        result: Tensor = self.head(self.narrow(x))
        return result


class Images(nn.Module):
    """A convolution with batch norm, a strided one, a depthwise one and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.down = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.hidden = nn.Linear(64 * 16, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.depthwise(torch.relu(self.down(x))))
        result: Tensor = self.head(torch.relu(self.hidden(x.flatten(1))))
        return result


class Attending(nn.Module):
    """Attention behind a layer norm with a gain: a converter folds gain and scale into weights."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        nn.init.uniform_(self.norm.weight, 0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        heads = (
            part.unflatten(-1, (4, -1)).transpose(1, 2)
            for part in (self.query(y), self.key(y), self.value(y))
        )
        y = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        result: Tensor = x + self.out(y)
        return result


def attending() -> tuple[nn.Module, Tensor]:
    """Return the attention network and 16 sequences."""
    torch.manual_seed(0)
    return Attending().eval(), torch.randn(16, TOKENS, WIDTH)


def images() -> tuple[nn.Module, Tensor]:
    """Return the image network with batch norm statistics of its own, and 16 images."""
    torch.manual_seed(0)
    net = Images()
    with torch.no_grad():
        net.train()
        for _ in range(10):
            net(torch.randn(16, 3, 8, 8))
    return net.eval(), torch.randn(16, 3, 8, 8)


def block() -> tuple[nn.Module, Tensor]:
    """Return the transformer block and 16 sequences."""
    torch.manual_seed(0)
    return Block().eval(), torch.randn(16, TOKENS, WIDTH)


def model_in(
    net: tuple[nn.Module, Tensor], scheme: Scheme,
    layer_schemes: Mapping[str, Scheme] = MappingProxyType({}),
) -> CompressedModel:  # fmt: skip
    """Return a network as a target emits it."""
    module, samples = net
    return CompressedModel(
        module=module,
        example_inputs=(samples[:1],),
        scheme=scheme,
        calibration=((samples,),),
        inputs=(InputSpec(name="samples"),),
        outputs=(OutputSpec(name="logits"),),
        layer_schemes=dict(layer_schemes),
    )


def predicted_size(model: CompressedModel, emission: Emission, folder: Path, target: str) -> float:
    """Return the predicted size of an emitted model's file over its real one."""
    graph = trace(model.module, model.example_inputs, name="net")
    figure = predict_size(graph, target, model.scheme, layer_schemes=model.layer_schemes)
    return figure.value / size_bytes(folder, emission.files)


def simulated_db(model: CompressedModel, samples: Tensor, target: str) -> float:
    """Return the signal to noise that the planner expects of a model, against the float network."""
    simulated = simulate(
        model.module, model.scheme, [(samples,)], target=target, layer_schemes=model.layer_schemes
    )
    with torch.no_grad():
        found = sqnr_db((model.module(samples),), (simulated(samples),))
    assert found is not None
    return found
