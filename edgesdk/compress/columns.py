"""A layer as a matrix product at sampled output positions, so that its weights can be fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from edgesdk.compress.lockstep import Meeting
from edgesdk.compress.program import CONVOLUTIONS, groups_of, kind_of

_SAMPLES_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Inputs ``[G, P, K]`` of P positions for a layer of G groups, and the outputs ``[G, P, O]``
    that the float layer gives there, behind ``clamp``; ``bias`` is ``[G, 1, O]``.
    A weight ``[G * O, K / kernel, *kernel]`` is ``[G, O, K]`` here."""

    inputs: Tensor
    wanted: Tensor
    bias: Tensor
    clamp: Callable[[Tensor], Tensor]

    @property
    def positions(self) -> int:
        """The number of output positions."""
        return self.inputs.shape[1]

    def arrange(self, weight: Tensor) -> Tensor:
        """Return a weight as ``[G, O, K]``."""
        groups, outputs = self.wanted.shape[0], self.wanted.shape[2]
        return weight.reshape(groups, outputs, -1)

    def error(self, arranged: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the mean squared error of each output channel, ``[G, O]``, on some positions."""
        inputs = self.inputs if rows is None else self.inputs[:, rows]
        wanted = self.wanted if rows is None else self.wanted[:, rows]
        found = self.clamp(torch.baddbmm(self.bias, inputs, arranged.transpose(1, 2)))
        return (found - wanted).square().mean(dim=1)


def columns_of(meeting: Meeting, positions: int, random: torch.Generator) -> Columns | str:
    """Return a layer at about ``positions`` random output positions, or why it has no such form."""
    node = meeting.layer.node
    if kind_of(node) == "linear":
        inputs, wanted = _linear_rows(meeting)
        chosen = torch.randperm(inputs.shape[0], generator=random)[:positions]
        inputs, wanted = inputs[chosen][None], wanted[chosen][None]
    elif kind_of(node) in CONVOLUTIONS[:2] and not any(isinstance(a, str) for a in node.args):
        inputs, wanted = _patches(meeting, positions, random)
    else:
        return "only linear layers and 1-D and 2-D convolutions with numbers for padding are fitted"
    bias = meeting.rounded[2].reshape(wanted.shape[0], 1, wanted.shape[2])
    return Columns(inputs=inputs, wanted=wanted, bias=bias, clamp=meeting.clamp)


def _linear_rows(meeting: Meeting) -> tuple[Tensor, Tensor]:
    wanted = meeting.clamp(meeting.exact_result())
    return meeting.rounded[0].flatten(0, -2), wanted.flatten(0, -2)


def _patches(meeting: Meeting, positions: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the patches ``[G, P, K]`` under random positions and the outputs ``[G, P, O]``."""
    wanted = meeting.clamp(meeting.exact_result()).flatten(2)
    source, weight = meeting.rounded[0], meeting.rounded[1]
    kernel = (1,) * (4 - weight.dim()) + tuple(weight.shape[2:])
    stride, padding, dilation = (
        _pair(meeting.layer.node, i, d) for i, d in ((3, 1), (4, 0), (5, 1))
    )
    if source.dim() == 3:
        source = source[:, :, None]
        stride, padding, dilation = (1, stride[1]), (0, padding[1]), (1, dilation[1])
    samples, places = wanted.shape[0], wanted.shape[2]
    each = min(places, -(-positions // samples))
    groups = groups_of(meeting.layer.node)
    inputs, outputs = [], []
    for start in range(0, samples, _SAMPLES_AT_ONCE):
        some = source[start : start + _SAMPLES_AT_ONCE]
        patches = F.unfold(some, kernel, dilation=dilation, padding=padding, stride=stride)
        chosen = torch.stack([torch.randperm(places, generator=random)[:each] for _ in some])
        inputs.append(_take(patches, chosen))
        outputs.append(_take(wanted[start : start + _SAMPLES_AT_ONCE], chosen))
    return _grouped(torch.cat(inputs), groups), _grouped(torch.cat(outputs), groups)


def _take(values: Tensor, chosen: Tensor) -> Tensor:
    """Return ``[N, C, L]`` at the chosen positions ``[N, E]`` as rows ``[N * E, C]``."""
    taken = values.gather(2, chosen[:, None].expand(-1, values.shape[1], -1))
    return taken.transpose(1, 2).flatten(0, 1)


def _grouped(rows: Tensor, groups: int) -> Tensor:
    return rows.reshape(rows.shape[0], groups, -1).transpose(0, 1).contiguous()


def _pair(node: Any, position: int, default: int) -> tuple[int, int]:
    given = list(node.args[position]) if len(node.args) > position else [default]
    return int(given[0]), int(given[-1])
