"""A task with residual blocks and batch norms, and an untrained network: nothing takes long."""

from __future__ import annotations

import torch
from shortcuts import resnet

from edgesdk import OutputSpec, Task
from edgesdk.task import Predict, Split, Tensors, output_tensors


def images(seed: int, count: int) -> torch.Tensor:
    """Return images ``[N, 3, 12, 12]`` that are views with strides of their own."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 12, 12, 3, generator=random).permute(0, 3, 1, 2)


def calibration() -> list[Tensors]:
    """Return inputs for ranges."""
    return [(images(1, 16),), (images(2, 16),)]


def evaluate(predict: Predict, split: Split) -> float:
    """Return the share of images in the first classes."""
    (logits,) = output_tensors(predict(images(len(split), 64)))
    return float((logits.argmax(1) < 2).double().mean())


def shortcuts() -> Task:
    """Return the task."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = resnet()
    return Task(
        name="shortcuts",
        model=model,
        example_inputs=(images(0, 1).contiguous(),),
        outputs=(OutputSpec(name="logits", kind="logits"),),
        calibration=calibration,
        evaluate=evaluate,
    )
