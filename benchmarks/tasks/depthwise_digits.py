"""``demo:digits`` read by a depthwise network: ``benchmarks/tasks/depthwise_digits.py:depthwise``.

The data is the demo's (8x8 scans, scikit-learn), the network trained on the spot in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it
from uneven import uneven

from edgesdk.compress.accelerator import one_thread, seeded
from edgesdk.demo import depthwise as networks
from edgesdk.demo.digits import digits
from edgesdk.task import Task
from edgesdk.task_check import training_batches

_EPOCHS = 30
_UNEVEN = 1.5
_LEARNING_RATE = 1e-2
_BLOCKS = ((16, 1), (32, 2), (32, 1), (48, 1))


def depthwise() -> Task:
    """Return the digits task with a MobileNet of 9 convolutions instead of its own network."""
    task = digits()
    source = Path(networks.__file__).read_text(encoding="utf-8") + task.source
    return replace(task, name="digits-depthwise", model=_trained_depthwise(), source=source)


def depthwise_uneven() -> Task:
    """Return it with channels of uneven ranges: the same function, int8 collapses."""
    return uneven(depthwise(), spread=_UNEVEN)


@cache
def _trained_depthwise() -> nn.Module:
    return trained_on_digits(
        lambda: networks.DepthwiseNet(channels=1, stem=12, blocks=_BLOCKS, classes=10)
    )


def trained_on_digits(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the network, trained with AdamW and one cycle of the rate (Smith and Topin 2018)."""
    task = digits()
    with one_thread(), seeded(torch.device("cpu"), task.seed):
        model = build()
        batches = len(list(training_batches(task)))
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, _LEARNING_RATE, total_steps=_EPOCHS * batches
        )
        for _ in range(_EPOCHS):
            for batch in training_batches(task):
                assert batch.targets is not None
                optimizer.zero_grad(set_to_none=True)
                loss = F.cross_entropy(model(*batch.inputs), batch.targets)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                cycle.step()
    return model.eval()
