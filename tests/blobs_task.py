"""A task that trains in a second: four clouds of points, told apart by a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from edgesdk import Batch, OutputSpec, Task
from edgesdk.task import Predict, Split, Tensors, output_tensors

FEATURES, CLASSES = 8, 4


def points(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Return inputs ``[N, 8]`` and their classes ``[N]``."""
    random = torch.Generator().manual_seed(seed)
    centres = 1.6 * torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(9))
    targets = torch.randint(CLASSES, (count,), generator=random)
    return centres[targets] + torch.randn(count, FEATURES, generator=random), targets


@cache
def trained() -> dict[str, Tensor]:
    """Return the weights of the network after a short training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        inputs, targets = points(1, 512)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return model.state_dict()


def network() -> nn.Module:
    """Return the untrained network."""
    return nn.Sequential(
        nn.Linear(FEATURES, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, CLASSES)
    )


def calibration() -> Iterator[Tensors]:
    """Yield inputs for activation ranges."""
    for seed in (2, 3):
        yield (points(seed, 64)[0],)


def training() -> Iterator[Batch]:
    """Yield one epoch."""
    for seed in range(10, 14):
        inputs, targets = points(seed, 64)
        yield Batch(inputs=(inputs,), targets=targets)


def evaluate(predict: Predict, split: Split) -> float:
    """Return the share of points that are told right."""
    inputs, targets = points({"validation": 20, "test": 21}[split], 500)
    (logits,) = output_tensors(predict(inputs))
    return int((logits.argmax(1) == targets).sum()) / len(targets)


def uneven_blobs() -> Task:
    """Return the task with a network of the same function whose hidden channels differ in size.

    What reads the small ones has large weights, and both share a scale with the others: int8
    loses much of the accuracy, equalisation wins it back.
    """
    task = blobs()
    random = torch.Generator().manual_seed(5)
    first, _, second, _, third = task.model
    with torch.no_grad():
        for ahead, behind in ((first, second), (second, third)):
            sizes = (2.2 * torch.randn(len(ahead.bias), generator=random)).exp()
            ahead.weight.mul_(sizes[:, None])
            ahead.bias.mul_(sizes)
            behind.weight.div_(sizes)
    return replace(task, name="uneven-blobs")


def lively_blobs() -> Task:
    """Return the task with a network that has no dead channel: pruning any costs something."""
    task = blobs()
    first, _, second, _, _ = task.model
    with torch.no_grad():
        hidden = torch.relu(first(points(2, 256)[0]))
        for layer, read in ((first, points(2, 256)[0]), (second, hidden)):
            is_dead = layer(read).amax(0) <= 0
            layer.bias[is_dead] += 1.0
    return replace(task, name="lively-blobs")


def blobs() -> Task:
    """Return the task."""
    model = network()
    model.load_state_dict(trained())
    return Task(
        name="blobs",
        version="1",
        model=model,
        example_inputs=(torch.zeros(1, FEATURES),),
        outputs=(OutputSpec(name="class", kind="logits", labels=("a", "b", "c", "d")),),
        calibration=calibration,
        training=training,
        evaluate=evaluate,
    )
