"""CIFAR-10 with trained networks: ``benchmarks/tasks/cifar10.py:resnet20`` and ``:resnet56``.

Weights: github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-Clause), He et al. 2016 with option A
shortcuts, as ``.npz``. Images: Krizhevsky 2009, the first 10,000 of the training set and the
first 1,000 of the test set. Both come from the folder ``EDGESDK_DATA`` names, or from
``../shared/data`` beside the checkout.

The networks were trained on the images that are validation here, so they score higher on
validation than on test, and a drop measured on validation overstates the drop on test.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from data_file import data_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from edgesdk.demo import resnet
from edgesdk.errors import TaskError
from edgesdk.task import (
    Batch,
    InputSpec,
    OutputSpec,
    Predict,
    Split,
    Task,
    Tensors,
    output_tensors,
)

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# What the weights were trained with (ImageNet's statistics, as their repository does).
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_TRAIN = "cifar10/cifar10_train_first10000_lossless.npz"
_TEST = "cifar10/cifar10_test_first1000_lossless.npz"
# Rows of the training file; every class is equally likely anywhere in it.
_ROWS = {
    "train": slice(0, 8_800),
    "calibration": slice(8_800, 9_000),
    "validation": slice(9_000, 10_000),
}
_BATCH = 128


def resnet20() -> Task:
    """Return CIFAR-10 with ResNet-20: 0.27 M parameters, 91.5 % on the 1,000 test images."""
    return _task("resnet20", "resnet20-12fca82f.npz", blocks=3)


def resnet56() -> Task:
    """Return CIFAR-10 with ResNet-56: 0.86 M parameters, 92.6 % on the 1,000 test images."""
    return _task("resnet56", "resnet56-4bfd9763.npz", blocks=9)


def _task(name: str, weights: str, *, blocks: int) -> Task:
    model = resnet.ResNet(channels=3, widths=(16, 32, 64), blocks=(blocks,) * 3, classes=10)
    _load_weights(model, data_file(f"resnet_cifar10_pretrained/{weights}"))
    return Task(
        name=f"cifar10-{name}",
        model=model.eval(),
        example_inputs=(_normalised(images_of("validation")[0][:1]),),
        inputs=(InputSpec(name="image", kind="image", layout="NCHW", mean=_MEAN, std=_STD),),
        outputs=(OutputSpec(name="logits", kind="logits", labels=LABELS),),
        calibration=_calibration,
        training=_training,
        evaluate=_accuracy,
        source=Path(resnet.__file__).read_text(encoding="utf-8"),
    )


def _load_weights(model: resnet.ResNet, path: Path) -> None:
    """Fill the model from the ``.npz``; its own shortcuts, option A, have no weights there."""
    with np.load(path, allow_pickle=False) as arrays:
        found = {_renamed(name): torch.from_numpy(arrays[name]) for name in arrays.files}
    state = model.state_dict()
    own = {key for key in state if "shortcut" in key or key.endswith("num_batches_tracked")}
    if set(found) != set(state) - own:
        different = sorted(set(found) ^ (set(state) - own))
        raise TaskError(f"{path} does not hold the weights of this network: {different[:4]}")
    model.load_state_dict(state | found)


def _renamed(name: str) -> str:
    """Return our name of a weight: ``layer2.0.conv1.weight`` is ``stages.1.0.conv1.weight``."""
    if not name.startswith("layer"):
        return name
    stage, _, rest = name.removeprefix("layer").partition(".")
    return f"stages.{int(stage) - 1}.{rest}"


def labels(split: Split) -> Tensor:
    """Return the classes ``[N]`` of a split's images, in the order they are scored in."""
    return images_of(split)[1]


def _accuracy(predict: Predict, split: Split) -> float:
    images, classes = images_of(split)
    (logits,) = output_tensors(predict(_normalised(images)))
    return float((logits.argmax(1) == classes).float().mean())


def _calibration() -> Iterator[Tensors]:
    images, _ = images_of("calibration")
    for image in _normalised(images):
        yield (image[None],)


def _training() -> Iterator[Batch]:
    """Yield one epoch with the augmentation of He et al. 2016: shifts by up to 4 pixels, flips."""
    images, labels = images_of("train")
    for chosen in torch.split(torch.randperm(len(images)), _BATCH):
        padded = F.pad(_normalised(images[chosen]), (4, 4, 4, 4))
        down, right = torch.randint(0, 9, (2, len(chosen)))
        columns = right[:, None] + torch.arange(32)
        flipped = torch.rand(len(chosen)) < 0.5
        columns[flipped] = columns[flipped].flip(1)
        rows = (down[:, None] + torch.arange(32))[:, None, :, None]
        sample = torch.arange(len(chosen))[:, None, None, None]
        channel = torch.arange(3)[None, :, None, None]
        shifted = padded[sample, channel, rows, columns[:, None, None, :]]
        yield Batch(inputs=(shifted,), targets=labels[chosen])


def images_of(name: str) -> tuple[Tensor, Tensor]:
    """Return images ``[N, 3, 32, 32]`` as uint8 and labels ``[N]`` of a split."""
    images, labels = _images(_TEST if name == "test" else _TRAIN)
    rows = _ROWS.get(name, slice(None))
    return images[rows], labels[rows]


@cache
def _images(name: str) -> tuple[Tensor, Tensor]:
    with np.load(data_file(name), allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays["x"]).permute(0, 3, 1, 2).contiguous()
        return images, torch.from_numpy(arrays["y"]).long()


def _normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
    return (images.float() / 255 - mean) / std
