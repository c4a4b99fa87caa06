"""Learn what the planner needs to know about a task: its graph and its sensitivities, cached."""

from __future__ import annotations

from edgesdk.graph import OpGraph
from edgesdk.planner.sensing import JOINT_SHARES, METHOD, measure_sensitivity
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.stages.files import foreign_files
from edgesdk.stages.request import Request
from edgesdk.target import installed_version
from edgesdk.trace import trace


def learn_graph(request: Request) -> OpGraph:
    """Return the original model's graph, traced once per task."""

    def build() -> OpGraph:
        request.progress.step("Tracing the model")
        return trace(request.task.model, request.task.example_inputs, name=request.task.name)

    return request.cache.document("graph", request.key_for("graph", _versions()), OpGraph, build)


def learn_sensitivity(request: Request, graph: OpGraph) -> Sensitivity:
    """Return what narrower groups and each scheme cost, measured once per task, multiple and
    target: which layers can have a scheme is the target's to say."""
    multiple = request.runtime.channel_multiple

    def build() -> Sensitivity:
        request.progress.step("Measuring sensitivity")
        with foreign_files(request) as in_scheme:
            return measure_sensitivity(
                request.task,
                graph,
                request.outputs,
                target=request.target.name,
                schemes=request.schemes,
                mixes=request.mixes,
                channel_multiple=multiple,
                progress=request.progress,
                in_scheme=in_scheme,
            )

    formats = f"{request.target.name} {','.join(request.schemes)} {sorted(request.mixes.items())}"
    key = request.key_for("sensitivity", METHOD, formats, multiple, repr(JOINT_SHARES), _versions())
    return request.cache.document("sensitivity", key, Sensitivity, build)


def _versions() -> str:
    packages = ("torch", "torch-pruning")
    return " ".join(f"{name}={installed_version(name)}" for name in packages)
