"""Small networks with trained-looking statistics, and what a Core ML emission of them needs."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.scheme import SCHEMES, Scheme
from edgesdk.task import InputSpec, OutputSpec


class Residual(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(image)))
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        x = F.max_pool2d(F.relu(x + y), 2)
        return self.classifier(x.mean((2, 3)))


class Separable(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 5),
        )


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 4)
        )


class Waveform(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(3, 8, 5, padding=2),
            nn.BatchNorm1d(8),
            nn.Tanh(),
            nn.MaxPool1d(2),
            nn.Conv1d(8, 8, 3, padding=1, groups=4),
            nn.Flatten(),
            nn.Linear(128, 4),
            nn.Softmax(-1),
        )


NETS = {
    "residual": (Residual, (1, 8, 8)),
    "separable": (Separable, (3, 16, 16)),
    "perceptron": (Perceptron, (20,)),
    "waveform": (Waveform, (3, 32)),
}


def build(net: str) -> nn.Module:
    """Return a network whose batch norms do something, the same one each time."""
    torch.manual_seed(0)
    module = NETS[net][0]().eval()
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
    return module


def samples(net: str, count: int = 32) -> Tensor:
    return torch.randn(count, *NETS[net][1], generator=torch.Generator().manual_seed(1))


def compressed(net: str, scheme: Scheme, batch_size: int = 1) -> CompressedModel:
    data = samples(net)
    return wrap(build(net), data[:batch_size], scheme, calibration=data)


def wrap(
    module: nn.Module, example: Tensor, scheme: Scheme = "fp16", calibration: Tensor | None = None
) -> CompressedModel:
    return CompressedModel(
        module=module.eval(),
        example_inputs=(example,),
        scheme=scheme,
        calibration=() if calibration is None else ((calibration,),),
        inputs=(InputSpec(name="data", kind="tensor"),),
        outputs=(OutputSpec(name="scores", kind="logits", labels=("cat", "dog")),),
    )


def runtime(
    unit: str = "cpu", version: str = "iOS17", precisions: tuple[Scheme, ...] = SCHEMES
) -> Runtime:
    one = Quantity(value=1.0, source="test", kind="estimated")
    names = [item.name for item in dataclasses.fields(PrecisionCost) if item.name != "kernels"]
    cost = PrecisionCost(**dict.fromkeys(names, one))
    return Runtime(
        target="coreml",
        delegate="",
        runtime="Core ML",
        minimum_version=version,
        unit=unit,  # type: ignore[arg-type]
        threads=1,
        channel_multiple=1,
        weights_in_ram=True,
        integer_io=False,
        precisions=dict.fromkeys(precisions, cost),
    )
