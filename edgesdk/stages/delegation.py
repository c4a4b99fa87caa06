"""How much of a file its delegate executes, as a condition: what is left runs on plain kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from edgesdk.artifact import OpCount
from edgesdk.errors import UnsupportedModel, UsageError
from edgesdk.stages.compression import compressed_model
from edgesdk.stages.emission import emit
from edgesdk.stages.request import Request

# Who executes an operator where the file says so; elsewhere the runtime decides when it loads it.
_LEFT = frozenset({"portable", "cpu"})
_DELEGATES = frozenset({"xnnpack", "vulkan", "coreml-delegate", "ethos-u"})


def delegated_share(operators: Sequence[OpCount]) -> float | None:
    """Return the share of a file's operators that a delegate executes, None where it is not told.

    By count, as read from the file: an operator left to the CPU may take most of the time.
    """
    if not operators or not {count.where for count in operators} <= _LEFT | _DELEGATES:
        return None
    total = sum(count.count for count in operators)
    return sum(count.count for count in operators if count.where in _DELEGATES) / total


def check_share(least: float) -> float:
    """Return the share asked for; ``UsageError`` where it cannot be one."""
    if not (math.isfinite(least) and 0 < least <= 1):
        raise UsageError(
            f"--min-delegated {least:g} is no share of a file's operators",
            expected="more than 0 and at most 100%",
        )
    return least


def keep_delegated(request: Request, least: float) -> Request:
    """Return the request without the precisions that leave too much to the CPU.

    The original is emitted in each; what a delegate takes hangs on operators and precision, not on
    widths. Raises ``UnsupportedModel`` where no precision is left, and ``UsageError`` where the
    target's files do not tell who executes what.
    """
    refused = {}
    for scheme in request.schemes:
        model = compressed_model(request, request.task.model, scheme)
        reason = _refusal(emit(request, model, "original").operators, request, least)
        if reason is not None:
            refused[scheme] = reason
    left = tuple(scheme for scheme in request.schemes if scheme not in refused)
    if not left:
        raise UnsupportedModel(
            "; ".join(f"{scheme}: {reason}" for scheme, reason in refused.items()),
            expected=f"{100 * least:g} % of the operators delegated",
            next_step="replace the operators that stay, or lower --min-delegated",
        )
    return replace(request, schemes=left, refused={**request.refused, **refused})


def require_delegated(operators: Sequence[OpCount], request: Request, least: float) -> None:
    """Raise ``UnsupportedModel`` where the file that was made delegates less than asked."""
    reason = _refusal(operators, request, least)
    if reason is not None:
        raise UnsupportedModel(
            f"the artifact was made, and {reason}",
            expected=f"{100 * least:g} % of the operators delegated",
            next_step="replace the operators that stay, or lower --min-delegated",
        )


def _refusal(operators: Sequence[OpCount], request: Request, least: float) -> str | None:
    """Return what stays on the CPU where that is too much."""
    if request.runtime.vela is not None:  # a file that Vela was not given runs on the CPU whole
        operators = [replace(c, where="cpu") if c.where == "builtin" else c for c in operators]
    share = delegated_share(operators)
    if share is None:
        raise UsageError(
            f"files of target {request.target.name!r} for {request.runtime.delegate} do not tell "
            "who executes what: the runtime decides that on the device",
            next_step="leave --min-delegated out",
        )
    if share >= least:
        return None
    stays = ", ".join(f"{count.count} x {count.op}" for count in operators if count.where in _LEFT)
    return f"only {100 * share:.0f} % of its operators are delegated; on the CPU: {stays}"
