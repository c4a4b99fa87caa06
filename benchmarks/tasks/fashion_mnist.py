"""Fashion-MNIST networks: ``benchmarks/tasks/fashion_mnist.py:depthwise`` and ``:residual``.

Images: Xiao, Rasul, Vollgraf 2017, 60,000 for training and 10,000 for testing, 28x28 grey, from
``fashion_mnist/`` in the folder ``EDGESDK_DATA`` names, or in ``../shared/data`` beside the
checkout. The networks are trained the first time, in minutes, and kept in edgesdk's cache folder.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from data_file import data_file
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it
from uneven import uneven

from edgesdk.cache import default_root
from edgesdk.compress.accelerator import seeded
from edgesdk.demo import depthwise as depthwise_networks
from edgesdk.demo import resnet
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

_LABELS = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_MEAN, _STD = 0.2860, 0.3530  # of the training images, scaled to [0, 1]
# Rows of the training files, which are in random order.
_ROWS = {
    "train": slice(0, 54_000),
    "calibration": slice(54_000, 54_256),
    "validation": slice(55_000, 60_000),
}
_BATCH = 128
_EPOCHS = 6
_LEARNING_RATE = 1e-2
_SEED = 0
_UNEVEN = 1.5


def depthwise() -> Task:
    """Return Fashion-MNIST with a MobileNet of 11 convolutions, 33 thousand parameters."""
    return _task("depthwise", _depthwise_network)


def depthwise_uneven() -> Task:
    """Return the MobileNet with channels of uneven ranges: the same function, int8 collapses."""
    return uneven(depthwise(), spread=_UNEVEN)


def residual() -> Task:
    """Return Fashion-MNIST with a residual network of 7 convolutions, 78 thousand parameters."""
    return _task("residual", _residual_network)


def _depthwise_network() -> nn.Module:
    blocks = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1))
    return depthwise_networks.DepthwiseNet(channels=1, stem=16, blocks=blocks, classes=10)


def _residual_network() -> nn.Module:
    return resnet.ResNet(channels=1, widths=(16, 32, 64), blocks=(1, 1, 1), classes=10)


def _task(name: str, build: Callable[[], nn.Module]) -> Task:
    return Task(
        name=f"fashion-mnist-{name}",
        model=_trained(name, build),
        example_inputs=(_normalised(_split("validation")[0][:1]),),
        inputs=(InputSpec(name="image", kind="image", layout="NCHW", mean=(_MEAN,), std=(_STD,)),),
        outputs=(OutputSpec(name="logits", kind="logits", labels=_LABELS),),
        calibration=_calibration,
        training=_training,
        evaluate=_accuracy,
        source="".join(
            Path(module.__file__).read_text(encoding="utf-8")
            for module in (resnet, depthwise_networks)
        ),
    )


def labels(split: Split) -> Tensor:
    """Return the classes ``[N]`` of a split's images, in the order they are scored in."""
    return _split(split)[1]


def _accuracy(predict: Predict, split: Split) -> float:
    images, classes = _split(split)
    (logits,) = output_tensors(predict(_normalised(images)))
    return float((logits.argmax(1) == classes).float().mean())


def _calibration() -> Iterator[Tensors]:
    for image in _normalised(_split("calibration")[0]):
        yield (image[None],)


def _training() -> Iterator[Batch]:
    """Yield one epoch, half of the images mirrored."""
    images, labels = _split("train")
    for chosen in torch.split(torch.randperm(len(images)), _BATCH):
        batch = _normalised(images[chosen])
        mirrored = torch.rand(len(chosen)) < 0.5
        batch[mirrored] = batch[mirrored].flip(3)
        yield Batch(inputs=(batch,), targets=labels[chosen])


def _trained(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    """Return the network with the weights in the cache, trained and put there if they are not."""
    files = (__file__, resnet.__file__, depthwise_networks.__file__)
    code = [Path(file).read_bytes() for file in files]
    digest = hashlib.sha256(b"\0".join([*code, torch.__version__.encode()])).hexdigest()
    path = default_root() / "benchmarks" / f"fashion-{name}-{digest[:16]}.safetensors"
    with seeded(torch.device("cpu"), _SEED):
        model = build()
        if path.is_file():
            model.load_state_dict(load_file(path))
            return model.eval()
        _train(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(model.state_dict(), partial)
    os.replace(partial, path)
    return model.eval()


def _train(model: nn.Module) -> None:
    """Train with AdamW and one cycle of the learning rate (Smith and Topin 2018)."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = _EPOCHS * -(-len(_split("train")[0]) // _BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(_EPOCHS):
        for batch in _training():
            assert batch.targets is not None
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(*batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cycle.step()


def _split(name: str) -> tuple[Tensor, Tensor]:
    """Return images ``[N, 1, 28, 28]`` as uint8 and labels ``[N]`` of a split."""
    images, labels = _images("t10k" if name == "test" else "train")
    rows = _ROWS.get(name, slice(None))
    return images[rows], labels[rows]


@cache
def _images(part: str) -> tuple[Tensor, Tensor]:
    """Return a part's images and labels from its idx files (LeCun, "The MNIST database")."""
    images = _read(f"fashion_mnist/{part}-images-idx3-ubyte.gz", header=16)
    labels = _read(f"fashion_mnist/{part}-labels-idx1-ubyte.gz", header=8)
    return images.reshape(-1, 1, 28, 28), labels.long()


def _read(name: str, *, header: int) -> Tensor:
    content = gzip.decompress(data_file(name).read_bytes())
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy())


def _normalised(images: Tensor) -> Tensor:
    return (images.float() / 255 - _MEAN) / _STD
