"""A float network and its rounded twin, run side by side for layer-by-layer recovery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.grids import absorbs
from edgesdk.compress.program import Layer, only_user
from edgesdk.task import Tensors

# What both networks hold at once: enough samples for a mean, few enough for phone-sized images.
_MOST_VALUES = 2**26


@dataclass(frozen=True, kw_only=True, eq=False)
class Meeting:
    """Both networks in front of a layer. ``exact`` and ``rounded`` are the operator's arguments:
    the float network's, and those of the network rounded so far."""

    layer: Layer
    exact: list[Any]
    rounded: list[Any]

    def exact_result(self) -> Tensor:
        """Return what the float layer gives."""
        result: Tensor = self.layer.node.target(*self.exact)  # type: ignore[operator]
        return result

    def rounded_result(self) -> Tensor:
        """Return what the rounded layer gives, before anything is rounded behind it."""
        result: Tensor = self.layer.node.target(*self.rounded)  # type: ignore[operator]
        return result

    def clamp(self, values: Tensor) -> Tensor:
        """Return the values behind the clamp that is computed with the layer, if there is one."""
        reader = only_user(self.layer.node)
        if reader is None or not absorbs(reader):
            return values
        result: Tensor = reader.target(values.clone(), *reader.args[1:])  # type: ignore[operator]
        return result


def walk(
    exact: nn.Module,
    rounded: FakeQuantized,
    calibration: Sequence[Tensors],
    visit: Callable[[Meeting], None],
) -> None:
    """Run both networks once, calling ``visit`` in front of every plain layer, in order.

    ``visit`` may change the weights of its layer in ``rounded.network``; what comes behind sees
    that. As many calibration samples as memory allows run at once, up to all of them.
    """
    batch = _few_enough(rounded, calibration)
    program, grids = rounded.programs.of(rounded.network, batch)
    layers = {layer.node: layer for layer in program.layers}
    with torch.no_grad():
        ours = program.start(exact, batch)
        theirs = program.start(
            rounded.network,
            batch,
            weight=rounded.rounded_weight(program),
            result=rounded.rounded(grids),
        )
        for node in program.graph.nodes:
            if node in layers:
                visit(
                    Meeting(
                        layer=layers[node], exact=ours.operands(node), rounded=theirs.operands(node)
                    )
                )
            ours.step(node)
            theirs.step(node)


def _few_enough(rounded: FakeQuantized, calibration: Sequence[Tensors]) -> Tensors:
    samples = sum(batch[0].shape[0] for batch in calibration)
    one = tuple(tensor[:1] for tensor in calibration[0])
    program, _ = rounded.programs.of(rounded.network, one)
    values = [node.meta.get("val") for node in program.graph.nodes if node not in program.fixed]
    largest = max((v.numel() for v in values if isinstance(v, Tensor)), default=1)
    fitting = max(1, min(samples, _MOST_VALUES // largest))
    joined = tuple(torch.cat(parts)[:fitting] for parts in zip(*calibration, strict=True))
    return joined
