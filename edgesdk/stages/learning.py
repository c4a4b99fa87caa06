"""Learn what the planner needs to know about a task: its graph and its sensitivities, cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgesdk.compress.factorize import survey_splits
from edgesdk.foreign import Foreign
from edgesdk.graph import OpGraph
from edgesdk.low_rank import Splits
from edgesdk.planner.sensing import JOINT_SHARES, METHOD, measure_sensitivity
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.split_sensing import SPLIT_METHOD, measure_splits
from edgesdk.planner.splits import gaining_splits, possible_splits
from edgesdk.stages.files import foreign_files
from edgesdk.stages.request import Request
from edgesdk.target import installed_version
from edgesdk.trace import trace
from edgesdk.workers.ledger import Ledger


def learn_graph(request: Request) -> OpGraph:
    """Return the original model's graph, traced once per task."""

    def build() -> OpGraph:
        request.progress.step("Tracing the model")
        return trace(request.task.model, request.task.example_inputs, name=request.task.name)

    return request.cache.document("graph", request.key_for("graph", _versions()), OpGraph, build)


def learn_sensitivity(request: Request, graph: OpGraph) -> Sensitivity:
    """Return what narrower groups, each scheme and split layers cost.

    Measured once per task, multiple and target: which layers can have a scheme is the target's to
    say. Splits once for those that the devices gain by.
    """
    multiple = request.runtime.channel_multiple
    formats = f"{request.target.name} {','.join(request.schemes)} {sorted(request.mixes.items())}"
    key = request.key_for("sensitivity", METHOD, formats, multiple, repr(JOINT_SHARES), _versions())

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
                workers=request.workers,
                ledger=Ledger(request.cache.scratch("sensitivity", key)),
                in_scheme=in_scheme,
            )

    known = request.cache.document("sensitivity", key, Sensitivity, build)
    request.cache.drop_scratch("sensitivity", key)
    return _with_splits(request, graph, known, key)


def _with_splits(request: Request, graph: OpGraph, known: Sensitivity, key: str) -> Sensitivity:
    """Return the sensitivity with what the layers lose that may become two, where some device
    gains by it; ``key`` is that of what is known."""
    if isinstance(request.task.model, Foreign):
        return known
    possible = possible_splits(graph, request.runtime.channel_multiple)
    splits = gaining_splits(
        graph,
        possible,
        request.runtimes.values(),
        request.schemes,
        bytes_count=_bytes_count(request),
    )
    if not splits:
        return replace(known, notes=(*known.notes, *_no_split(possible)))

    def build() -> Sensitivity:
        request.progress.step("Measuring low-rank splits")
        task = request.task
        layers = tuple(dict.fromkeys(split.layer for split in splits))
        survey = survey_splits(task.model, task.example_inputs, graph, layers)
        can = tuple(split for split in splits if split.layer in survey.layers)
        found = measure_splits(task, request.outputs, known, can, progress=request.progress)
        return replace(found, notes=(*found.notes, *_refusals(survey.refused)))

    whole = request.key_for("splits", key, SPLIT_METHOD, repr(splits))
    return request.cache.document("splits", whole, Sensitivity, build)


def _bytes_count(request: Request) -> bool:
    """Return whether a limit is on bytes that weights are among."""
    budget = request.budget
    if budget.size_bytes is not None or budget.download_bytes is not None:
        return True
    if any(not runtime.weights_in_ram for runtime in request.runtimes.values()):
        devices = (request.device, *(other.device for other in request.others))
        return any(device.flash_bytes is not None for device in devices)
    return budget.memory_bytes is not None


def _no_split(possible: Splits) -> tuple[str, ...]:
    if not possible:
        return ()
    layers = len({split.layer for split in possible})
    return (
        f"low-rank splits are not offered: none of the {layers} layers that could become two would "
        "be a tenth faster there, and none a tenth smaller where bytes are limited",
    )


def _refusals(refused: Mapping[str, str]) -> tuple[str, ...]:
    by_reason: dict[str, list[str]] = {}
    for layer, reason in refused.items():
        by_reason.setdefault(reason, []).append(layer)
    return tuple(f"not split: {', '.join(names)} ({why})" for why, names in by_reason.items())


def _versions() -> str:
    packages = ("torch", "torch-pruning")
    return " ".join(f"{name}={installed_version(name)}" for name in packages)
