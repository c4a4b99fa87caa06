"""What a network saves without one of its residual blocks, at every width of its groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgesdk.cost.fusion import Kernel, fuse
from edgesdk.graph import OpGraph
from edgesdk.planner.kernel_tables import MOST_GROUPS, Costs, Price, groups_of, width_tables
from edgesdk.planner.widths import WidthModel
from edgesdk.residual import ResidualBlock

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockPart:
    """What some kernels of a block cost: an axis for each of ``groups``, in their order."""

    groups: tuple[int, ...]
    latency_ms: Floats
    weight_bytes: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockCost:
    """What goes with a block: its kernels, in ``parts``, and what no kernel of its own has.

    ``container_bytes`` is what the file says of it beside weights. ``alive`` (bytes, ``[T]``) is
    what is alive at each of the block's own moments in the original,
    0 at all others. What is held beside tensors and weights is taken to stay: of several blocks
    that share a peak only the last one to go frees it.
    """

    block: str
    latency_ms: float
    weight_bytes: float
    container_bytes: float
    parts: tuple[BlockPart, ...]
    alive: Floats

    def saved(self, places: Sequence[int]) -> Costs:
        """Return what the network saves where group ``g`` has its ``places[g]``-th width."""
        at = [tuple(places[g] for g in part.groups) for part in self.parts]
        latency = sum(part.latency_ms[i] for part, i in zip(self.parts, at, strict=True))
        stored = sum(part.weight_bytes[i] for part, i in zip(self.parts, at, strict=True))
        return float(self.latency_ms + latency), float(self.weight_bytes + stored)


def countable(model: WidthModel, block: ResidualBlock) -> bool:
    """Return whether every kernel of a block depends on few enough groups for a table."""
    own = (kernel for kernel in fuse(model.graph) if kernel.op.name in block.ops)
    return all(len(groups_of(model, [kernel])) <= MOST_GROUPS for kernel in own)


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockPricing:
    """Prices blocks: ``price`` costs the named kernels of a part of the graph, ``whole`` all of a
    graph, ``file_bytes`` its file; ``alive`` are the bytes of tensors at each moment of the
    original."""

    model: WidthModel
    choices: Sequence[Sequence[int]]
    price: Price
    whole: Callable[[OpGraph], Costs]
    file_bytes: Callable[[OpGraph], float]
    alive: Floats

    def cost(self, name: str) -> BlockCost:
        """Return what goes with a block."""
        block = self.model.block(name)
        kernels = fuse(self.model.graph)
        own = [kernel for kernel in kernels if kernel.op.name in block.ops]
        parts = tuple(self._part(groups, part) for groups, part in _gathered(self.model, own))
        original, shorter = self.model.graph, self.model.at(self.model.full, gone=(name,))
        before, after = self.whole(original), self.whole(shorter)
        stored = before[1] - after[1]
        is_own = np.array([kernel.op.name in block.ops for kernel in kernels])
        return BlockCost(
            block=name,
            latency_ms=before[0] - after[0] - sum(part.latency_ms.flat[-1] for part in parts),
            weight_bytes=stored - sum(part.weight_bytes.flat[-1] for part in parts),
            container_bytes=self.file_bytes(original) - self.file_bytes(shorter) - stored,
            parts=parts,
            alive=np.where(is_own, self.alive, 0.0),
        )

    def _part(self, groups: tuple[int, ...], kernels: Sequence[Kernel]) -> BlockPart:
        latency, stored = width_tables(self.model, self.choices, groups, kernels, self.price)
        return BlockPart(groups=groups, latency_ms=latency, weight_bytes=stored)


def _gathered(
    model: WidthModel, kernels: Sequence[Kernel]
) -> list[tuple[tuple[int, ...], list[Kernel]]]:
    """Return kernels by their groups; those of fewer groups go with others that have these too."""
    found: dict[tuple[int, ...], list[Kernel]] = {}
    sets = [groups_of(model, [kernel]) for kernel in kernels]
    for groups, kernel in sorted(zip(sets, kernels, strict=True), key=lambda pair: -len(pair[0])):
        within = (known for known in found if set(groups) <= set(known))
        found.setdefault(next(within, groups), []).append(kernel)
    return list(found.items())
