"""Predict every figure of an option on a device, each with its interval."""

from __future__ import annotations

from edgesdk.cost.latency import predict_latency
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import predict_size
from edgesdk.device import Runtime
from edgesdk.figure import Figure, FigureName
from edgesdk.graph import OpGraph
from edgesdk.planner.options import Option
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.uncertainty import drop_margin
from edgesdk.scheme import Scheme


def predict_figures(
    option: Option, sensitivity: Sensitivity, runtime: Runtime, *, recovers: bool
) -> dict[FigureName, Figure]:
    """Return what is predicted of an option; a figure nothing is known about is absent.

    ``recovers`` says whether training follows pruning, which widens the interval of the drop.
    """
    graph = sensitivity.candidates[option.candidate].graph
    figures = predict_costs(graph, runtime, option.scheme)
    drop = _drop(option, sensitivity, recovers=recovers)
    return figures if drop is None else {**figures, "accuracy_drop": drop}


def predict_costs(graph: OpGraph, runtime: Runtime, scheme: Scheme) -> dict[FigureName, Figure]:
    """Return what a graph costs in a scheme: latency, memory, size, flash and download."""
    size = predict_size(graph, runtime.target, scheme)
    figures: dict[FigureName, Figure] = {
        "latency_ms": predict_latency(graph, runtime, scheme).total,
        "memory_bytes": predict_memory(graph, runtime, scheme),
        "size_bytes": size,
        "download_bytes": _download(size),
    }
    if not runtime.weights_in_ram:
        figures["flash_bytes"] = size
    return figures


def _download(size: Figure) -> Figure:
    """Return the size after entropy coding: at most the size itself; how much less is not known
    before the file exists, so the interval reaches down to nothing."""
    return Figure(
        value=size.value, standing="predicted", low=0.0, high=size.upper, source="at most the file"
    )


def _drop(option: Option, sensitivity: Sensitivity, *, recovers: bool) -> Figure | None:
    """Return the expected drop: as simulated, or between none and that where training follows."""
    point = sensitivity.point(option.candidate, option.scheme)
    if point.drop is None:
        return None
    margin = drop_margin(
        disagreement=point.disagreement,
        samples=min(sensitivity.samples, sensitivity.metric_samples),
    )
    trained = recovers and bool(sensitivity.candidates[option.candidate].groups)
    lowest = min(0.0, point.drop) if trained else point.drop
    return Figure(
        value=(lowest + point.drop) / 2,
        standing="predicted",
        low=max(lowest - margin, sensitivity.drop_range[0]),
        high=min(point.drop + margin, sensitivity.drop_range[1]),
        source="simulated before recovery" if trained else "simulated",
    )
