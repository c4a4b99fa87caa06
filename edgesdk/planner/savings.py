"""What an option would cost more if one of its changes were taken back."""

from __future__ import annotations

from edgesdk.budget import format_figure
from edgesdk.device import Runtime
from edgesdk.figure import FigureName
from edgesdk.planner.options import Option
from edgesdk.planner.prediction import predict_costs
from edgesdk.planner.widths import WidthModel

_SAVED: tuple[FigureName, ...] = ("latency_ms", "size_bytes")


def explain_saving(option: Option, undone: Option, model: WidthModel, runtime: Runtime) -> str:
    """Return in words how much more ``undone`` needs than the option: "0.2 ms and 31 kB"."""
    saved, spent = (
        predict_costs(each.graph(model), runtime, each.scheme, each.layer_schemes)
        for each in (option, undone)
    )
    return " and ".join(
        format_figure(name, max(0.0, spent[name].value - saved[name].value)) for name in _SAVED
    )
