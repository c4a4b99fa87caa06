"""Find where a file goes wrong: emit ever shorter beginnings of the network and compare each."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from edgesdk.compressed import CompressedModel
from edgesdk.errors import EdgeSDKError, ParityError
from edgesdk.foreign import Foreign
from edgesdk.parity import MINIMUM_SQNR_DB, sqnr_db
from edgesdk.running.adapter import artifact_predict
from edgesdk.stages.proof import start
from edgesdk.stages.request import Request
from edgesdk.task import OutputSpec, Tensors, output_tensors

_SAMPLES = 16
_WHOLE = "model"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Between which layers a file goes wrong: ``before`` still follows, ``layer`` no longer does.

    ``before`` is empty for the inputs, ``layer`` for the outputs, behind the last layer.
    Signal to noise in dB, None where it is not finite.
    """

    before: str
    before_db: float | None
    layer: str
    layer_db: float | None

    def __str__(self) -> str:
        after = f"layer {self.layer!r}" if self.layer else "the outputs"
        text = f"it goes wrong at {after} ({_decibels(self.layer_db)})"
        return text + (
            f", behind {self.before!r} ({_decibels(self.before_db)})" * bool(self.before)
        )


@contextlib.contextmanager
def naming_the_layer(request: Request) -> Iterator[None]:
    """Return a context in which a file that computes wrongly is looked into before it is refused.

    The error then says at which layer it goes wrong, if beginnings of the network show it.
    """
    try:
        yield
    except ParityError as problem:
        fault = None if problem.model is None else find_fault(request, problem.model)
        if fault is None:
            raise
        raise type(problem)(
            f"{problem.found}; {fault}", expected=problem.expected, next_step=problem.next_step
        ) from problem


def find_fault(request: Request, model: CompressedModel) -> Fault | None:
    """Return where an emitted model first goes wrong, None where no beginning of it does.

    Emits about log2 of the number of layers networks. A beginning that the target cannot emit
    tells nothing and is passed over. A foreign network has no beginnings.
    """
    if isinstance(model.module, Foreign):
        return None
    inputs = model.samples(_SAMPLES)
    layers = order = _layers_in_order(model.module, inputs)
    minimum = MINIMUM_SQNR_DB[model.coarsest]
    known: dict[str, float | None] = {}

    def follows(layer: str) -> bool | None:
        request.progress.step(f"Looking for the layer that goes wrong: {layer or 'the outputs'}")
        try:
            known[layer] = found = _sqnr_until(request, model, layer, order, inputs)
        except EdgeSDKError:
            return None
        return found is not None and found >= minimum

    good, bad = "", ""
    if follows("") is not False:
        return None
    while layers:
        middle = layers[len(layers) // 2]
        verdict = follows(middle)
        place = layers.index(middle)
        if verdict is None:
            layers = [layer for layer in layers if layer != middle]
        elif verdict:
            good, layers = middle, layers[place + 1 :]
        else:
            bad, layers = middle, layers[:place]
    return Fault(before=good, before_db=known.get(good), layer=bad, layer_db=known[bad])


def _decibels(ratio: float | None) -> str:
    return "not finite" if ratio is None else f"{ratio:.1f} dB"


def _layers_in_order(module: nn.Module, inputs: Tensors) -> list[str]:
    """Return the layers whose output can stand for the network so far, in order of execution.

    Those called once, whose only output is floating point with one row a sample.
    """
    model = copy.deepcopy(module).eval()
    finished: list[tuple[str, object]] = []
    for name, layer in model.named_modules():
        if name:
            layer.register_forward_hook(
                lambda _layer, _inputs, output, name=name: finished.append((name, output))
            )
    with torch.no_grad():
        model(*inputs)
    names = [name for name, _ in finished]
    found: dict[int, str] = {}
    for name, output in finished:
        if names.count(name) == 1 and _has_rows(output, len(inputs[0])):
            found[id(output)] = name  # a block ends with its last layer's very output: one of them
    return list(found.values())


def _has_rows(output: object, count: int) -> bool:
    """Return whether it is one floating-point tensor with so many rows."""
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return False
    return output.dim() > 0 and len(output) == count


class _Tap:
    """Holds what a layer answered last."""

    output: Tensor | None = None

    def __call__(self, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        self.output = output


class _Until(nn.Module):
    """The network up to a layer, whose output it returns; exporting drops what is behind."""

    def __init__(self, module: nn.Module, layer: str) -> None:
        super().__init__()
        self.model = copy.deepcopy(module)
        self._tap = _Tap()
        self.model.get_submodule(layer).register_forward_hook(self._tap)

    def forward(self, *inputs: Tensor) -> Tensor:
        self.model(*inputs)
        output, self._tap.output = self._tap.output, None
        assert output is not None
        return output


def _until(model: CompressedModel, layer: str, order: Sequence[str]) -> CompressedModel:
    if not layer:
        return model
    return replace(
        model,
        module=_Until(model.module, layer).eval(),
        outputs=(OutputSpec(name="part"),),
        layer_schemes={
            f"{_WHOLE}.{name}": scheme
            for name, scheme in model.layer_schemes.items()
            if name in order[: order.index(layer) + 1]
        },
    )


def _sqnr_until(
    request: Request, model: CompressedModel, layer: str, order: Sequence[str], inputs: Tensors
) -> float | None:
    """Return how well a file of the network up to a layer follows it; all of it without one."""
    part = _until(model, layer, order)
    with torch.no_grad():
        wanted = output_tensors(part.module(*inputs))
    with TemporaryDirectory(prefix="edgesdk-") as name:
        emission = request.target.emit(part, request.runtime, Path(name))
        with start(request, Path(name), emission) as process:
            return sqnr_db(wanted, output_tensors(artifact_predict(process)(*inputs)))
