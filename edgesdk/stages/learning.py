"""Learn what the planner needs to know about a task: its graph and its sensitivities, cached."""

from __future__ import annotations

from pathlib import Path

from edgesdk.document import read_json, to_json
from edgesdk.graph import OpGraph
from edgesdk.planner.sensitivity import PRUNING_RATIOS, SPREADS, Sensitivity, measure_sensitivity
from edgesdk.stages.request import Request
from edgesdk.target import installed_version
from edgesdk.trace import trace


def learn_graph(request: Request) -> OpGraph:
    """Return the original model's graph, traced once per task."""

    def build(folder: Path) -> None:
        request.progress.step("Tracing the model")
        graph = trace(request.task.model, request.task.example_inputs, name=request.task.name)
        (folder / "graph.json").write_text(to_json(graph), encoding="utf-8")

    key = request.key_for("graph", _versions())
    return read_json(OpGraph, request.cache.folder("graph", key, build) / "graph.json")


def learn_sensitivity(request: Request, graph: OpGraph) -> Sensitivity:
    """Return what each pruning candidate and scheme costs, measured once per task and multiple."""
    multiple = request.runtime.channel_multiple

    def build(folder: Path) -> None:
        request.progress.step("Measuring sensitivity")
        sensitivity = measure_sensitivity(
            request.task,
            graph,
            request.outputs,
            schemes=request.schemes,
            channel_multiple=multiple,
            progress=request.progress,
        )
        (folder / "sensitivity.json").write_text(to_json(sensitivity), encoding="utf-8")

    key = request.key_for(
        "sensitivity",
        ",".join(request.schemes),
        multiple,
        repr((PRUNING_RATIOS, SPREADS)),
        _versions(),
    )
    folder = request.cache.folder("sensitivity", key, build)
    return read_json(Sensitivity, folder / "sensitivity.json")


def _versions() -> str:
    packages = ("edgesdk", "torch", "torch-pruning")
    return " ".join(f"{name}={installed_version(name)}" for name in packages)
