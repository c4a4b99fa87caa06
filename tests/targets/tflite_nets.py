"""Small networks with trained-looking statistics, and their ``.tflite`` files."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.running.adapter import decode_outputs, encode_inputs
from edgesdk.scheme import SCHEMES, Scheme
from edgesdk.target import Arrays, Emission, Session
from edgesdk.task import InputSpec, OutputSpec, Tensors, output_tensors
from edgesdk_tflite import TARGET
from edgesdk_tflite.flatbuffer import ModelFile, read_model

_FOLDER = tempfile.TemporaryDirectory(prefix="tflite-tests-")


class Residual(nn.Module):
    def __init__(self, channels: int, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv_norm = nn.BatchNorm2d(width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.down_norm = nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.conv_norm(self.conv(x)))
        x = F.relu(self.down_norm(self.down(x)))
        return self.head(x.mean((2, 3)))


class Separable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(F.relu6(self.depthwise_norm(self.depthwise(self.stem(x)))))


class Wave(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(3, 8, 5, padding=2)
        self.norm1 = nn.BatchNorm1d(8)
        self.conv2 = nn.Conv1d(8, 8, 3, stride=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.norm1(self.conv1(x))), 2)
        return self.head(F.relu(self.conv2(x)).mean(-1))


class TwoHeads(nn.Module):
    """Two inputs, two outputs, and an output that another operator reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Linear(5, 4)

    def forward(self, image: Tensor, vector: Tensor) -> Tensors:
        features = F.relu(self.conv(image))
        return features.mean((2, 3)) + self.scale(vector), features


def features() -> nn.Module:
    """Return the residual network up to its head: nothing in it is fully connected."""
    module = Residual(3)
    module.head = nn.Identity()  # type: ignore[assignment]
    return module


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "residual": (lambda: Residual(1), ((1, 1, 8, 8),)),
    "residual_colour": (lambda: Residual(3), ((1, 3, 32, 32),)),
    "residual_batch": (lambda: Residual(3), ((2, 3, 8, 8),)),
    "features": (features, ((1, 3, 8, 8),)),
    "separable": (Separable, ((1, 3, 16, 16),)),
    "wave": (Wave, ((1, 3, 32),)),
    "perceptron": (perceptron, ((1, 12),)),
    "two_heads": (TwoHeads, ((1, 3, 8, 8), (1, 5))),
}


def runtime(
    name: str = "litert", *, integer_io: bool = True, schemes: tuple[Scheme, ...] = SCHEMES
) -> Runtime:
    number = Quantity(value=1.0, source="a test", kind="estimated")
    cost = PrecisionCost(
        mac_per_s=number,
        bytes_per_s=number,
        op_overhead_s=number,
        inference_overhead_s=number,
        error_factor=number,
    )
    return Runtime(
        target="tflite",
        delegate="xnnpack",
        runtime=name,
        minimum_version="2.0",
        unit="cpu",
        threads=1,
        channel_multiple=1,
        weights_in_ram=True,
        integer_io=integer_io,
        precisions=dict.fromkeys(schemes, cost),
    )


def network(name: str) -> tuple[nn.Module, Tensors]:
    """Return a network in eval mode, with batch norms that do something, and example inputs."""
    build, shapes = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        module = build().eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.2, 0.2)
                nn.init.uniform_(layer.running_var, 0.5, 2.0)
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.bias, -0.2, 0.2)
        return module, tuple(torch.randn(shape) for shape in shapes)


def compressed(
    module: nn.Module, examples: Tensors, scheme: Scheme = "fp32", *, samples: int = 16
) -> CompressedModel:
    """Return a compressed model with random calibration data, in batches of 8."""
    with torch.no_grad():
        outputs = output_tensors(module(*examples))
    generator = torch.Generator().manual_seed(3)
    return CompressedModel(
        module=module,
        example_inputs=examples,
        scheme=scheme,
        calibration=tuple(
            tuple(torch.randn(8, *e.shape[1:], generator=generator) for e in examples)
            for _ in range(samples // 8)
        ),
        inputs=tuple(InputSpec(name=f"input_{i}") for i in range(len(examples))),
        outputs=tuple(OutputSpec(name=f"output_{i}") for i in range(len(outputs))),
    )


class Emitted:
    """An emitted file with what it came from; ``samples`` are inputs to compare on."""

    def __init__(self, model: CompressedModel, *, integer_io: bool = True) -> None:
        self.model = model
        self.folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
        self.emission: Emission = TARGET.emit(model, runtime(integer_io=integer_io), self.folder)
        self.samples: Tensors = tuple(
            torch.cat(parts) for parts in zip(*model.calibration, strict=True)
        )

    @property
    def path(self) -> Path:
        return self.folder / self.emission.files[0]

    @property
    def file(self) -> ModelFile:
        return read_model(self.path)

    def presented_as(self, scheme: Scheme) -> CompressedModel:
        return replace(self.model, scheme=scheme)

    def open(self, host_runtime: str) -> Session:
        return TARGET.open(self.folder, self.emission, host_runtime, 1)

    def raw_outputs(self, session: Session) -> list[Arrays]:
        """Return the file's own outputs for each batch of the samples."""
        stacked, _ = encode_inputs(self.samples, self.emission.inputs)
        return [session.run(list(batch)) for batch in zip(*stacked, strict=True)]

    def predict(self, session: Session) -> Tensors:
        outputs = [np.stack(parts) for parts in zip(*self.raw_outputs(session), strict=True)]
        return decode_outputs(outputs, self.emission.outputs, len(self.samples[0]))

    def reference(self) -> Tensors:
        """Return what PyTorch computes for the samples, at the file's batch."""
        batch = len(self.model.example_inputs[0])
        with torch.no_grad():
            parts = [
                output_tensors(self.model.module(*(s[i : i + batch] for s in self.samples)))
                for i in range(0, len(self.samples[0]), batch)
            ]
        return tuple(torch.cat(output) for output in zip(*parts, strict=True))

    def noise_db(self, host_runtime: str) -> float:
        # Rounding follows the size of the outputs, offset included: untrained networks hardly
        # vary over samples, so here the whole output is the signal.
        pairs = zip(self.reference(), self.predict(self.open(host_runtime)), strict=True)
        powers = [(y.double().square().sum(), (y.double() - z).square().sum()) for y, z in pairs]
        signal, noise = (float(sum(column)) for column in zip(*powers, strict=True))
        return 10 * math.log10(signal / max(noise, 1e-20 * signal))


@cache
def emitted(name: str, scheme: Scheme, *, integer_io: bool = True) -> Emitted:
    """Return the file of a named network; each is converted once a session.

    int8 files take and return int8 unless told otherwise.
    """
    module, examples = network(name)
    return Emitted(compressed(module, examples, scheme), integer_io=integer_io)
