"""The baseline: the original emitted as float for the same target and device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgesdk.figure import Figure, FigureName, Figures, own_figures
from edgesdk.foreign import Foreign
from edgesdk.graph import OpGraph
from edgesdk.layer_format import LayerSchemes
from edgesdk.planner.prediction import predict_costs
from edgesdk.scheme import Scheme
from edgesdk.stages.compression import compressed_model
from edgesdk.stages.emission import emit
from edgesdk.stages.fleet import Member
from edgesdk.stages.proof import Proof, prove
from edgesdk.stages.request import Request
from edgesdk.stages.scoring import score_original


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline:
    """The float original's best figures, and (once emitted) the proof of its file.

    ``provable`` names the figures that emitting a model for this request establishes here.
    ``elsewhere`` predicts the figures on the other devices of a fleet.
    """

    graph: OpGraph
    scheme: Scheme
    figures: Mapping[FigureName, Figure]
    provable: frozenset[FigureName]
    elsewhere: Mapping[str, Figures]
    proof: Proof | None = None


def predict_elsewhere(
    request: Request, graph: OpGraph, scheme: Scheme,
    layer_schemes: LayerSchemes = MappingProxyType({}),
) -> dict[str, Figures]:  # fmt: skip
    """Return what a graph costs on each of the fleet's other devices, by their names."""
    return {
        other.device.name: _costs_on(other, graph, scheme, layer_schemes)
        for other in request.others
    }


def _costs_on(
    other: Member, graph: OpGraph, scheme: Scheme,
    layer_schemes: LayerSchemes = MappingProxyType({}),
) -> Figures:  # fmt: skip
    return own_figures(predict_costs(graph, other.runtime, scheme, layer_schemes))


def predict_baseline(request: Request, graph: OpGraph) -> Baseline:
    """Return the baseline by prediction alone."""
    scheme = request.baseline_scheme
    provable: set[FigureName] = {"size_bytes", "flash_bytes", "download_bytes", "accuracy_drop"}
    if request.can_measure:
        provable.add("latency_ms")
    provable |= set(request.target.capability(request.runtime).estimates)
    return Baseline(
        graph=graph,
        scheme=scheme,
        figures=predict_costs(graph, request.runtime, scheme),
        provable=frozenset(provable),
        # Each device's own float form: one computes fp16 and another fp32.
        elsewhere={
            other.device.name: _costs_on(other, graph, other.runtime.float_scheme)
            for other in request.others
        },
    )


def establish_baseline(request: Request, graph: OpGraph) -> Baseline:
    """Return the baseline emitted, its parity proven, its bytes counted, its latency measured.

    A float file that does not follow the PyTorch model is a conversion fault, found here before
    any compression could be blamed for it.
    """
    predicted = predict_baseline(request, graph)
    model = compressed_model(request, request.task.model, predicted.scheme)
    emitted = emit(request, model, "original")
    proof = prove(request, emitted, baseline=None, split=None)
    figures = {**predicted.figures, **proof.predicted, **proof.verified, **proof.measured}
    return Baseline(
        graph=graph,
        scheme=predicted.scheme,
        figures=figures,
        provable=predicted.provable | set(proof.verified) | set(proof.measured),
        elsewhere=predicted.elsewhere,
        proof=proof,
    )


def with_accuracy(
    request: Request, baseline: Mapping[FigureName, Figure]
) -> Mapping[FigureName, Figure]:
    """Return the baseline's figures with the original model's test score among them."""
    if request.task.evaluate is None:
        return baseline
    score = score_original(request, "test")
    model = request.task.model
    framework = model.framework if isinstance(model, Foreign) else "PyTorch"
    source = f"the original in {framework}, {score.samples} test samples"
    accuracy = Figure(value=score.value, standing="verified", source=source)
    return {**baseline, "accuracy": accuracy}
