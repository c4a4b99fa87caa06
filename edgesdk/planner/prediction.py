"""Predict every figure of an option on a device, each with its interval."""

from __future__ import annotations

from types import MappingProxyType

from edgesdk.cost.energy import predict_energy
from edgesdk.cost.latency import cost_of, predict_latency
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import predict_file_size
from edgesdk.device import Runtime
from edgesdk.figure import Figure, FigureName
from edgesdk.graph import OpGraph
from edgesdk.layer_format import LayerSchemes
from edgesdk.planner.options import Option
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.uncertainty import drop_margin
from edgesdk.scheme import Scheme


def predict_costs(
    graph: OpGraph, runtime: Runtime, scheme: Scheme,
    layer_schemes: LayerSchemes = MappingProxyType({}),
) -> dict[FigureName, Figure]:  # fmt: skip
    """Return what a graph costs in a scheme: latency, energy, memory, size, flash, download.

    ``layer_schemes`` names the layers that have another scheme than the network.
    """
    size = predict_file_size(graph, runtime, scheme, layer_schemes)
    latency = predict_latency(graph, runtime, scheme, layer_schemes).total
    figures: dict[FigureName, Figure] = {
        "latency_ms": latency,
        "memory_bytes": predict_memory(graph, runtime, scheme, layer_schemes),
        "size_bytes": size,
        "download_bytes": _download(size),
    }
    energy = predict_energy(latency, cost_of(runtime, scheme))
    if energy is not None:
        figures["energy_mj"] = energy
    if not runtime.weights_in_ram:
        figures["flash_bytes"] = size
    return figures


def _download(size: Figure) -> Figure:
    """Return the size after entropy coding: at most the size itself; how much less is not known
    before the file exists, so the interval reaches down to nothing."""
    return Figure(
        value=size.value, standing="predicted", low=0.0, high=size.upper, source="at most the file"
    )


def predict_drop(option: Option, sensitivity: Sensitivity, *, recovers: bool) -> Figure | None:
    """Return the expected metric drop, None without a metric.

    As simulated, its interval widened by the noise of ``evaluate``; between none and that where
    training follows pruning (``recovers``).
    """
    found = sensitivity.drop(option)
    if found is None:
        return None
    drop, spread = found
    disagreement = sensitivity.format(option.scheme).disagreement
    # The samples that the metric was computed on, and that a disagreement was seen on.
    seen = [sensitivity.metric_samples, *([] if disagreement is None else [sensitivity.samples])]
    margin = sensitivity.noise + spread + drop_margin(disagreement=disagreement, samples=min(seen))
    trained = recovers and not option.is_whole(sensitivity.widths.full)
    lowest = min(0.0, drop) if trained else drop
    return Figure(
        value=(lowest + drop) / 2,
        standing="predicted",
        low=max(lowest - margin, sensitivity.drop_range[0]),
        high=min(drop + margin, sensitivity.drop_range[1]),
        source="simulated before recovery" if trained else "simulated",
    )
