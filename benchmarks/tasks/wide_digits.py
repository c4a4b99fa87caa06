"""``demo:digits`` read by wide linear layers: ``benchmarks/tasks/wide_digits.py:wide``.

Layers far wider than what they have to tell: their answers lie in few directions, which is where a
split into two of lower rank pays.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from depthwise_digits import trained_on_digits
from torch import nn

from edgesdk.demo.digits import digits
from edgesdk.task import Task

_WIDTH = 512


def wide() -> Task:
    """Return the digits task with a network of four linear layers, 564 thousand parameters."""
    return replace(digits(), name="digits-wide", model=_trained())


@cache
def _trained() -> nn.Module:
    return trained_on_digits(_network)


def _network() -> nn.Module:
    """Return images ``[N, 1, 8, 8]`` to logits ``[N, 10]``, through two layers of 512 by 512."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, _WIDTH),
        nn.ReLU(),
        nn.Linear(_WIDTH, _WIDTH),
        nn.ReLU(),
        nn.Linear(_WIDTH, _WIDTH),
        nn.ReLU(),
        nn.Linear(_WIDTH, 10),
    )
