"""Two MLPerf Tiny reference networks, rebuilt: ``benchmarks/tasks/tiny_references.py:resnet8``
and ``:ds_cnn``.

Weights: the float files of github.com/mlcommons/tiny @ 1afd2c98 (Apache-2.0; Banbury et al. 2021,
"MLPerf Tiny Benchmark"), batch norms folded in as they come; DS-CNN's keeps most weights as int8
with one scale a layer, so those are its float weights. ResNet-8 classifies CIFAR-10's images
as ``cifar10.py`` reads them, DS-CNN the clips of Speech Commands' test set (Warden 2018, CC BY 4.0)
as 49 by 10 cepstral coefficients, speaker by speaker either here or there. Both come from the
folder ``EDGESDK_DATA`` names, or from ``../shared/data`` beside the checkout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import cifar10
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from data_file import data_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from edgesdk.errors import TaskError
from edgesdk.task import InputSpec, OutputSpec, Predict, Split, Task, Tensors, output_tensors

_WORDS = (
    "down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown",
)  # fmt: skip
# Of ten speakers: whose clips each split has.
_SPEAKERS = {"calibration": range(1), "validation": range(1, 3), "test": range(3, 10)}
_CALIBRATED = 200


class Padded(nn.Module):
    """A convolution that pads as TensorFlow's SAME: what is odd goes to the right and below."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, out, ceil(H / stride), ceil(W / stride)]``."""
        (high, wide), (step, _) = self.conv.kernel_size, self.conv.stride
        below, right = (
            max(0, (-(-n // step) - 1) * step + size - n)
            for n, size in zip(x.shape[2:], (high, wide), strict=True)
        )
        padded = F.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2))
        result: Tensor = self.conv(padded)
        return result


def _conv(into: int, out: int, size: tuple[int, int], stride: int = 1) -> Padded:
    return Padded(nn.Conv2d(into, out, size, stride))


class Block(nn.Module):
    """Two convolutions and what passes them by: itself, or a third one where the shape changes."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(into, out, (3, 3), stride)
        self.second = _conv(out, out, (3, 3))
        self.past = _conv(into, out, (1, 1), stride) if into != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, out, H / stride, W / stride]``."""
        return torch.relu(self.past(x) + self.second(torch.relu(self.first(x))))


class ResNet8(nn.Module):
    """Images ``[N, 3, 32, 32]`` from 0 to 255 to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 16, (3, 3))
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        features = self.blocks(torch.relu(self.stem(x)))
        logits: Tensor = self.head(F.avg_pool2d(features, 8).flatten(1))
        return logits


class DsCnn(nn.Module):
    """Cepstral coefficients ``[N, 1, 49, 10]`` to logits ``[N, 12]``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(1, 64, (10, 4), 2), nn.ReLU()]
        for _ in range(4):
            layers += [Padded(nn.Conv2d(64, 64, 3, groups=64)), nn.ReLU()]
            layers += [_conv(64, 64, (1, 1)), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(F.avg_pool2d(self.layers(x), (25, 5)).flatten(1))
        return logits


def resnet8() -> Task:
    """Return CIFAR-10 with ResNet-8: 78 thousand parameters."""
    given = InputSpec(
        name="image", kind="image", layout="NCHW", mean=(0.0,) * 3, std=(1 / 255,) * 3
    )
    network = _trained(ResNet8(), "pretrainedResnet.tflite")
    return _task("tiny-resnet8", network, _images, given, cifar10.LABELS)


def ds_cnn() -> Task:
    """Return Speech Commands with DS-CNN: 23 thousand parameters."""
    network = _trained(DsCnn(), "kws_ref_model_float32.tflite")
    return _task("tiny-ds-cnn", network, _clips, InputSpec(name="mfcc"), _WORDS)


Samples = Callable[[str], tuple[Tensor, Tensor]]


def _task(
    name: str, model: nn.Module, samples: Samples, given: InputSpec, labels: tuple[str, ...]
) -> Task:
    def calibration() -> Iterator[Tensors]:
        for sample in samples("calibration")[0][:_CALIBRATED]:
            yield (sample[None],)

    def accuracy(predict: Predict, split: Split) -> float:
        inputs, classes = samples(split)
        (logits,) = output_tensors(predict(inputs))
        return float((logits.argmax(1) == classes).float().mean())

    return Task(
        name=name,
        model=model,
        example_inputs=(samples("calibration")[0][:1],),
        inputs=(given,),
        outputs=(OutputSpec(name="logits", kind="logits", labels=labels),),
        calibration=calibration,
        evaluate=accuracy,
    )


def _trained(model: nn.Module, file: str) -> nn.Module:
    """Return the model, its layers filled in the order in which they run, with a file's weights."""
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    found = list(_weights(file))
    if len(found) != len(layers):
        raise TaskError(f"{file} has {len(found)} layers with weights, not {len(layers)}")
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, found, strict=True):
            shaped = torch.from_numpy(weight)
            if isinstance(layer, nn.Conv2d):
                # [out, H, W, in], or [1, H, W, out] of a depthwise one.
                shaped = shaped.permute((3, 0, 1, 2) if layer.groups > 1 else (0, 3, 1, 2))
            if shaped.shape != layer.weight.shape:
                raise TaskError(f"{file} has a layer of {list(shaped.shape)} in another's place")
            layer.weight.copy_(shaped)
            assert layer.bias is not None
            layer.bias.copy_(torch.from_numpy(bias))
    return model.eval()


def _weights(file: str) -> Iterator[tuple[Any, Any]]:
    """Yield weight and bias of each layer of a float file, in the order of its operators."""
    interpreter = Interpreter(
        str(data_file(f"mlperf_tiny/{file}")),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            _, weight, bias = op["inputs"]
            values, (scale, _) = interpreter.get_tensor(weight), details[weight]["quantization"]
            weights = values * np.float32(scale) if values.dtype == np.int8 else values.copy()
            yield weights, interpreter.get_tensor(bias).copy()


def _images(split: str) -> tuple[Tensor, Tensor]:
    images, classes = cifar10.images_of(split)
    return images.float(), classes


@cache
def _clips(split: str) -> tuple[Tensor, Tensor]:
    """Return the clips ``[N, 1, 49, 10]`` of a split's speakers and their words ``[N]``."""
    path = data_file("speech_commands_v2_test/mfcc_49x10_all4890.npz")
    with np.load(path, allow_pickle=False) as arrays:
        names = [str(file).rpartition("/")[2] for file in arrays["files"]]
        kept = [i for i, name in enumerate(names) if _tenth(name) in _SPEAKERS[split]]
        clips = torch.from_numpy(arrays["x"][kept].astype(np.float32))
        return clips[:, None], torch.from_numpy(arrays["y"][kept]).long()


def _tenth(name: str) -> int:
    """Return which tenth of the speakers a clip's is of: the number before ``_nohash_``."""
    return hashlib.sha256(name.partition("_nohash_")[0].encode()).digest()[0] % 10
