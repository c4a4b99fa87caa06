"""Losses and budgets drawn at random, to hold the planner against trying everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from knowing import RUNTIME

from edgesdk.budget import Condition
from edgesdk.figure import FigureName
from edgesdk.graph import OpGraph
from edgesdk.planner.prediction import predict_costs
from edgesdk.planner.sensitivity import GroupCurve
from edgesdk.planner.widths import WidthModel

PROVABLE: tuple[FigureName, ...] = ("latency_ms", "size_bytes")


def drawn_curves(
    model: WidthModel, choices: Sequence[tuple[int, ...]], random: np.random.Generator
) -> tuple[GroupCurve, ...]:
    """Return a curve for each group that falls from its narrowest width to none at the whole."""
    return tuple(
        GroupCurve(
            layer=layer,
            order=tuple((c,) for c in range(row[-1])),
            choices=row,
            losses=(*np.sort(random.uniform(0.05, 2, len(row) - 1))[::-1].tolist(), 0.0),
        )
        for layer, row in zip(model.groups, choices, strict=True)
    )


def conditions_at(graph: OpGraph, share: float, size: float | None) -> tuple[Condition, ...]:
    """Return limits at shares of the original's predicted latency and, unless None, size."""
    original = predict_costs(graph, RUNTIME, "fp32")
    asked: list[tuple[FigureName, float]] = [("latency_ms", share)]
    asked += [] if size is None else [("size_bytes", size)]
    return tuple(Condition(figure=name, limit=part * original[name].value) for name, part in asked)
