"""Say which layers are split in two of lower rank and which stay whole, and why."""

from __future__ import annotations

from dataclasses import replace

from edgesdk.device import Runtime
from edgesdk.low_rank import LayerSplit
from edgesdk.planner.options import Option
from edgesdk.planner.savings import explain_saving
from edgesdk.planner.sensitivity import Sensitivity

_NAMED_SPLITS = 4


def split_reasons(option: Option, sensitivity: Sensitivity, runtime: Runtime) -> list[str]:
    """Return a sentence for each layer that is split (the cheapest first), and one for those that
    could be and stay whole."""
    cheapest = sorted(option.splits, key=sensitivity.split_loss)
    reasons = [
        f"Layer {split.layer} is split at rank {split.rank}: that is expected to lose "
        f"{sensitivity.split_loss(split):.2g}; whole, the network would need "
        f"{_saved(split, option, sensitivity, runtime)} more."
        for split in cheapest[:_NAMED_SPLITS]
    ]
    others = [f"{layer} (rank {rank})" for layer, rank in cheapest[_NAMED_SPLITS:]]
    if others:
        reasons.append(f"So are {', '.join(others)}.")
    highest = {layer: LayerSplit(layer, rank) for layer, rank in sensitivity.looked_at}
    changed = {split.layer for split in option.splits}
    whole = [split for layer, split in highest.items() if layer not in changed]
    if whole:
        whole.sort(key=sensitivity.split_loss)
        named = [
            f"{split.layer} ({sensitivity.split_loss(split):.2g} at rank {split.rank})"
            for split in whole[:_NAMED_SPLITS]
        ]
        more = len(whole) - len(named)
        text = f"Layers that could be split and stay whole: {', '.join(named)}"
        reasons.append(text + (f" and {more} more." if more else "."))
    return reasons


def _saved(split: LayerSplit, option: Option, sensitivity: Sensitivity, runtime: Runtime) -> str:
    others = tuple(other for other in option.splits if other != split)
    undone = replace(option, splits=others)
    return explain_saving(option, undone, sensitivity.widths, runtime)
