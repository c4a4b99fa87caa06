"""Times of operators: what a profiler saw, scaled to what nobody watched, joined to layers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def leaf_events(blocks: Iterable[Any]) -> list[tuple[str, bool, list[float]]]:
    """Return each operator of an ETDump's blocks: its name, whether a delegate ran it, its times.

    What contains other events is left out: the method, and each call of a delegate.
    """
    found = [
        (event.name, bool(event.is_delegated_op), [float(ms) for ms in event.perf_data.raw])
        for block in blocks
        if block.name == "Execute"
        for event in block.events
        if event.perf_data is not None
    ]
    return [item for item in found if item[1] or item[0].startswith("native_call_")]


def typical(times: Sequence[float]) -> float:
    """Return the mean of the middle half: XNNPACK counts whole microseconds; a median jumps."""
    ordered = sorted(times)
    quarter = len(ordered) // 4
    return float(np.mean(ordered[quarter : len(ordered) - quarter]))


# What XNNPACK calls a kernel, and what the serialised graph calls the node it computes. A
# depthwise node with several outputs for each input runs as a plain convolution: one kind.
_KERNEL_KINDS = (
    (r"deconvolution", "conv_transpose2d"),
    (r"convolution|depthwise", "conv2d"),
    (r"fully connected", "fully_connected"),
    (r"batch matrix multiply", "batch_matrix_multiply"),
    (r"softmax", "softmax"),
    (r"max pooling", "max_pooling2d"),
    (r"global average pooling|^mean", "global_avg_pooling2d"),
    (r"average pooling", "avg_pooling2d"),
    (r"add", "add"),
    (r"multiply", "multiply"),
)


def layers_by_name(folder: Path) -> dict[str, str]:
    """Return the layer of each of the runtime's operators whose name the converter kept."""
    document = json.loads((folder / "profile_map.json").read_text(encoding="utf-8"))
    known: dict[str, str] = document["runtime_op_to_layer"]
    return known


def first_known(names: Iterable[str], known: dict[str, str]) -> str | None:
    """Return the layer of the first name that has one: a fused operator counts as what it led."""
    return next((known[name] for name in names if name in known), None)


def join(events: Sequence[tuple[str, bool]], folder: Path) -> list[str | None]:
    """Return the layer of each delegated kernel, by kind and order; None where they do not tally.

    XNNPACK names no nodes. It runs them in the graph's order, so where as many kernels of a kind
    ran as the graph has nodes of it, the first is the first. The name says the kind.
    """
    places: dict[str, list[str]] = {}
    for name, layer in layers_by_name(folder).items():
        node = re.sub(r"^\d+\.(depthwise_(?=conv2d))?|_\d+$", "", name)
        places.setdefault(node, []).append(layer)
    kinds = [_kind_of(name) if delegated else None for name, delegated in events]
    layers: list[str | None] = []
    for kind in kinds:
        at = places.get(kind or "", [])
        number = sum(earlier == kind for earlier in kinds[: len(layers)])
        layers.append(at[number] if len(at) == kinds.count(kind) else None)
    return layers


def _kind_of(kernel: str) -> str | None:
    plain = kernel.lower()
    return next((kind for pattern, kind in _KERNEL_KINDS if re.search(pattern, plain)), None)
