"""``demo:digits``: real scans of handwritten digits and a residual network that reads them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from edgesdk.cache import default_root
from edgesdk.compress.accelerator import seeded
from edgesdk.demo import resnet
from edgesdk.errors import OutputError, TargetUnavailable
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
from edgesdk.task_key import weights_sha256

_SEED = 0
_SIZES = {"train": 997, "calibration": 100, "validation": 300, "test": 400}
_BATCH = 64
_EPOCHS = 30
_LEARNING_RATE = 1e-2


def digits() -> Task:
    """Return the task: classify an 8x8 scan ``[N, 1, 8, 8]`` of a digit, ten logits.

    The data is the test part of Optical Recognition of Handwritten Digits (Alpaydin and Kaynak,
    UCI, 1998) as scikit-learn ships it: 1,797 scans, split once into 997 for training, 100 for
    calibration, 300 for validation and 400 for testing. The network is trained the first time,
    in seconds, and kept in edgesdk's cache folder, or in ``EDGESDK_CACHE`` where that is set.

    Raises ``TargetUnavailable`` with the install command when scikit-learn is missing.
    """
    mean, std = _statistics()
    return Task(
        name="digits",
        model=_trained_network(),
        example_inputs=(_normalised(_split("validation")[0][:1]),),
        inputs=(InputSpec(name="image", kind="image", layout="NCHW", mean=(mean,), std=(std,)),),
        outputs=(OutputSpec(name="logits", kind="logits", labels=tuple("0123456789")),),
        calibration=_calibration,
        training=_training,
        evaluate=_accuracy,
        seed=_SEED,
        source=Path(resnet.__file__).read_text(encoding="utf-8"),
    )


def labels(split: Split) -> Tensor:
    """Return the digits ``[N]`` that a split's scans show, in the order they are scored in."""
    return _split(split)[1]


def _accuracy(predict: Predict, split: Split) -> float:
    images, digit = _split(split)
    (logits,) = output_tensors(predict(_normalised(images)))
    return float((logits.argmax(1) == digit).float().mean())


def _calibration() -> Iterator[Tensors]:
    images, _ = _split("calibration")
    for image in _normalised(images):
        yield (image[None],)


def _training() -> Iterator[Batch]:
    for images, labels in _epoch():
        yield Batch(inputs=(images,), targets=labels)


def _epoch() -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of images and labels, every scan shifted by up to one pixel each way."""
    images, labels = _split("train")
    images, order = _normalised(images), torch.randperm(len(images))
    for chosen in torch.split(order, _BATCH):
        padded = F.pad(images[chosen], (1, 1, 1, 1), value=float(images.min()))
        down, right = torch.randint(0, 3, (2, len(chosen)))
        rows = down[:, None] + torch.arange(8)
        columns = right[:, None] + torch.arange(8)
        sample = torch.arange(len(chosen))[:, None, None]
        shifted = padded[:, 0][sample, rows[:, :, None], columns[:, None, :]]
        yield shifted[:, None], labels[chosen]


@cache
def _scans() -> tuple[Tensor, Tensor]:
    """Return all scans ``[1797, 1, 8, 8]`` scaled to [0, 1] and their labels, in a fixed order."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as problem:
        raise TargetUnavailable(
            "demo:digits takes its scans from scikit-learn, which is not installed",
            next_step="pip install 'edgesdk[demo]'",
        ) from problem
    data = load_digits()
    # RandomState's stream is frozen by NumPy's compatibility policy (NEP 19).
    order = np.random.RandomState(_SEED).permutation(len(data.images))
    images = torch.from_numpy(data.images[order]).float()[:, None] / 16
    return images, torch.from_numpy(data.target[order]).long()


def _split(name: str) -> tuple[Tensor, Tensor]:
    first = 0
    for split, size in _SIZES.items():
        if split == name:
            break
        first += size
    images, labels = _scans()
    return images[first : first + size], labels[first : first + size]


@cache
def _statistics() -> tuple[float, float]:
    images, _ = _split("train")
    return float(images.mean()), float(images.std())


def _normalised(images: Tensor) -> Tensor:
    mean, std = _statistics()
    return (images - mean) / std


def _trained_network() -> resnet.ResNet:
    """Return the network with the weights in the cache, trained and put there if they are not."""
    path = _cached_weights()
    model = _load(path)
    if model is None:
        model = _network()
        _train(model)
        _save(model, path)
    return model.eval()


def _network() -> resnet.ResNet:
    with seeded(torch.device("cpu"), _SEED):
        return resnet.ResNet(channels=1, widths=(16, 32, 64), blocks=(1, 1, 1), classes=10)


def _cached_weights() -> Path:
    """Return where the weights are kept; the name covers the code, the seed and PyTorch."""
    code = [Path(file).read_bytes() for file in (__file__, resnet.__file__)]
    digest = hashlib.sha256(b"\0".join([*code, torch.__version__.encode()])).hexdigest()
    return default_root() / "demo" / f"digits-{digest[:16]}.safetensors"


def _load(path: Path) -> resnet.ResNet | None:
    """Return the network with the weights in the file, None unless the file is sound."""
    if not path.is_file():
        return None
    model = _network()
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get("sha256")
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no dict
    except (OSError, SafetensorError, RuntimeError):
        return None
    return model if weights_sha256(model) == expected else None


def _save(model: resnet.ResNet, path: Path) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), partial, metadata={"sha256": weights_sha256(model)})
        os.replace(partial, path)
    except (OSError, SafetensorError) as problem:
        with suppress(OSError):
            partial.unlink()
        raise OutputError(
            f"the trained network cannot be kept in {path.parent}: {problem}",
            next_step="set EDGESDK_CACHE to a folder that can be written",
        ) from problem


def _train(model: resnet.ResNet) -> None:
    """Train with AdamW and one cycle of the learning rate (Smith and Topin 2018)."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = _EPOCHS * -(-_SIZES["train"] // _BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    model.train()
    with _one_thread(), seeded(torch.device("cpu"), _SEED):
        for _ in range(_EPOCHS):
            for shifted, labels in _epoch():
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(model(shifted), labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                cycle.step()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run the block on one thread: as fast for 8x8 pixels, and the same sums on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
