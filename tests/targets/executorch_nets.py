"""Small networks with trained-looking statistics, and what an ExecuTorch emission of them needs."""

from __future__ import annotations

import dataclasses
import tempfile
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.scheme import SCHEMES, Scheme
from edgesdk.target import Emission
from edgesdk.task import InputSpec, OutputSpec, output_tensors
from edgesdk_executorch import TARGET

_FOLDER = tempfile.TemporaryDirectory(prefix="executorch-tests-")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(image)))
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return self.classifier(self.pool(F.relu(x + y)).flatten(1))


class Separable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.classifier = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.features(image).mean((2, 3)))


class TwoInTwoOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.side = nn.Linear(6, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        both = F.relu(self.conv(image)).mean((2, 3)) + F.relu(self.side(vector))
        return self.head(both), both


class HardToFold(nn.Module):
    """Batch norms that cannot be folded, weights that are shared, clamps in every spelling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3, affine=False)
        self.conv = nn.Conv2d(3, 8, 3, padding="same")
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 1)
        self.norm1 = nn.BatchNorm2d(8)
        self.norm2 = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.norm3 = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 6)
        self.norm4 = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 4)
        self.norm5 = nn.BatchNorm1d(4)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(self.first(image))
        x = self.norm(x) + F.relu6(x)
        x = F.relu(self.norm1(self.shared(x))) + F.relu(self.norm2(self.shared(x)))
        x = self.norm3(self.up(x)).clamp(0, 1).mean((-1, -2)).clamp(-2, 2)
        x = self.linear(x)
        return self.norm5(self.head(self.norm4(x) + x))


class Wrapped(nn.Module):
    """A convolution and a layer of one function, so that an error has a layer to name."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.culprit = layer

    def forward(self, image: Tensor) -> Tensor:
        return self.culprit(self.conv(image))


NETS = {
    "residual": (Residual, 1, [(3, 16, 16)]),
    "separable": (Separable, 1, [(3, 16, 16)]),
    "perceptron": (
        lambda: nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4)),
        2,
        [(20,)],
    ),
    "two_in_two_out": (TwoInTwoOut, 2, [(3, 8, 8), (6,)]),
    "hard_to_fold": (HardToFold, 1, [(3, 8, 8)]),
}


def trained(net: nn.Module) -> nn.Module:
    """The network in eval mode, its batch norms with statistics as training leaves them."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return net.eval()


def samples(shapes: list[tuple[int, ...]], count: int, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, *shape, generator=generator) for shape in shapes)


def model_of(
    net: nn.Module, scheme: Scheme, shapes: list[tuple[int, ...]], batch: int = 1
) -> CompressedModel:
    examples = samples(shapes, batch, seed=1)
    with torch.no_grad():
        outputs = output_tensors(net(*examples))
    return CompressedModel(
        module=net,
        example_inputs=examples,
        scheme=scheme,
        calibration=tuple(samples(shapes, 8, seed=seed) for seed in range(2, 6)),
        inputs=tuple(InputSpec(name=f"input{index}") for index in range(len(shapes))),
        outputs=tuple(OutputSpec(name=f"output{index}") for index in range(len(outputs))),
    )


def compressed(name: str, scheme: Scheme) -> CompressedModel:
    """The named network, always with the same weights."""
    build, batch, shapes = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = trained(build())
    return model_of(net, scheme, shapes, batch)


@cache
def emitted(name: str, scheme: Scheme) -> tuple[Path, Emission]:
    """The named network's file, written once for all tests: its folder and emission."""
    folder = Path(_FOLDER.name) / f"{name}_{scheme}"
    folder.mkdir()
    return folder, TARGET.emit(compressed(name, scheme), runtime(), folder)


def runtime(**changes: object) -> Runtime:
    quantity = Quantity(value=1.0, source="made up for a test", kind="estimated")
    cost = PrecisionCost(
        mac_per_s=quantity,
        bytes_per_s=quantity,
        op_overhead_s=quantity,
        inference_overhead_s=quantity,
        error_factor=quantity,
    )
    plain = Runtime(
        target="executorch",
        delegate="xnnpack",
        runtime="executorch",
        minimum_version="1.5.1",
        unit="cpu",
        threads=1,
        channel_multiple=8,
        weights_in_ram=True,
        integer_io=False,
        precisions=dict.fromkeys(SCHEMES, cost),
    )
    return dataclasses.replace(plain, **changes)
