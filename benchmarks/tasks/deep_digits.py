"""``demo:digits`` read by a deeper residual network: ``benchmarks/tasks/deep_digits.py:deep``.

Twenty layers as in ResNet20, a quarter as wide: most of its blocks keep their shape and could go.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from depthwise_digits import trained_on_digits
from torch import nn

from edgesdk.demo.digits import digits
from edgesdk.demo.resnet import ResNet
from edgesdk.task import Task


def deep() -> Task:
    """Return the digits task with a residual network of 9 blocks, 69 thousand parameters."""
    return replace(digits(), name="digits-deep", model=_trained())


@cache
def _trained() -> nn.Module:
    return trained_on_digits(
        lambda: ResNet(channels=1, widths=(8, 16, 32), blocks=(3, 3, 3), classes=10)
    )
