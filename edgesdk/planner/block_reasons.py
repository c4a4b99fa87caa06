"""Say which residual blocks go and which stay: what each loses, and what going saves."""

from __future__ import annotations

from dataclasses import replace

from edgesdk.device import Runtime
from edgesdk.planner.options import Option
from edgesdk.planner.savings import explain_saving
from edgesdk.planner.sensitivity import Sensitivity

_NAMED_BLOCKS = 4


def block_reasons(option: Option, sensitivity: Sensitivity, runtime: Runtime) -> list[str]:
    """Return a sentence for each block that goes (the cheapest first), and one for those that
    could and stay."""
    losses = {point.block: sensitivity.block_loss(point.block) for point in sensitivity.blocks}
    cheapest = sorted(losses, key=lambda block: losses[block])
    gone = [block for block in cheapest if block in option.removed_blocks]
    left = [block for block in cheapest if block not in option.removed_blocks]
    reasons = [
        f"Block {block} goes: without it {losses[block]:.2g} more is expected to be lost, with it "
        f"the network would need {_back(block, option, sensitivity, runtime)} more."
        for block in gone[:_NAMED_BLOCKS]
    ]
    if len(gone) > _NAMED_BLOCKS:
        reasons.append(f"So do {', '.join(gone[_NAMED_BLOCKS:])}.")
    if left:
        named = [f"{block} ({losses[block]:.2g})" for block in left[:_NAMED_BLOCKS]]
        more = len(left) - _NAMED_BLOCKS
        text = f"Blocks that could go and stay, by the expected loss: {', '.join(named)}"
        reasons.append(text + (f" and {more} more." if more > 0 else "."))
    return reasons


def _back(block: str, option: Option, sensitivity: Sensitivity, runtime: Runtime) -> str:
    """Return in words what a block costs where all else is as the option has it."""
    others = tuple(other for other in option.removed_blocks if other != block)
    undone = replace(option, removed_blocks=others)
    return explain_saving(option, undone, sensitivity.widths, runtime)
