"""Shadow prices: what a tenth more or less of each limit would do to the expected loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgesdk.budget import Condition, format_figure
from edgesdk.figure import TITLES, FigureName
from edgesdk.plan import Price

STEP = 0.1

BestLoss = Callable[[Sequence[Condition]], float | None]
"""The least expected loss within some conditions, None where nothing fits."""


def shadow_prices(conditions: Sequence[Condition], best_loss: BestLoss) -> tuple[Price, ...]:
    """Return the price of every limit that was asked for, the others held; on all devices of a
    fleet it moves together.

    By solving the program anew, not from the duals of its relaxation: widths come in steps, and
    between two of them a dual promises what no network has.
    """
    asked = {
        c.figure: c.limit
        for c in reversed(conditions)  # so that the first device's limit is the one named
        if c.figure != "accuracy_drop" and c.asked_by == "budget"
    }
    at_limit = best_loss(conditions) if asked else None

    def moved(figure: FigureName, factor: float) -> float | None:
        return best_loss(
            [
                replace(c, limit=factor * c.limit)
                if c.figure == figure and c.asked_by == "budget"
                else c
                for c in conditions
            ]
        )

    return tuple(
        Price(
            figure=figure,
            limit=limit,
            expected_loss=at_limit,
            tighter_loss=moved(figure, 1 - STEP),
            looser_loss=moved(figure, 1 + STEP),
        )
        for figure, limit in reversed(asked.items())
    )


def explain_price(price: Price) -> str:
    """Return a sentence about what moving a limit would buy or cost."""
    more, less = (
        f"{TITLES[price.figure].lower()} {format_figure(price.figure, (1 + s) * price.limit)}"
        for s in (STEP, -STEP)
    )
    if price.expected_loss is None:
        if price.looser_loss is None:
            return f"Not even {more} would do."
        return f"With {more} there is a network, of expected loss {price.looser_loss:.3g}."
    change = f"from {price.expected_loss:.3g} to"
    if price.looser_loss is not None and price.looser_loss < price.expected_loss:
        text = f"A limit of {more} would lower the expected loss {change} {price.looser_loss:.3g}"
    else:
        text = f"A limit of {more} would buy nothing"
    if price.tighter_loss is None:
        return f"{text}; at {less} nothing fits."
    if price.tighter_loss > price.expected_loss:
        return f"{text}; one of {less} would raise the loss {change} {price.tighter_loss:.3g}."
    return f"{text}, and one of {less} would cost nothing."
