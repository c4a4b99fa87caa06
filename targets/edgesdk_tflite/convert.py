"""A compressed model in PyTorch becomes a float ``.tflite`` file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgesdk.compressed import CompressedModel
from edgesdk.errors import UnsupportedModel
from edgesdk.export import export_model
from edgesdk.foreign import Foreign
from edgesdk.task import Tensors
from edgesdk_tflite.attribution import linear_weights
from edgesdk_tflite.exported import layers_by_hierarchy
from edgesdk_tflite.failure import conversion_error
from edgesdk_tflite.flatbuffer import parse_model
from edgesdk_tflite.layout import (
    Layout,
    arrange,
    channels_last_layout,
    without_transpositions,
    wrap,
)
from edgesdk_tflite.naming import layer_in_hierarchy, name_tensors
from edgesdk_tflite.quiet import captured_output

SIGNATURE = "serving_default"

# The last model's float file under what it was made of: the precisions of one model, which are
# emitted one after the other, all begin with it, and making it takes most of an emission.
_LAST: dict[str, FloatFile] = {}


@dataclass(frozen=True, kw_only=True)
class FloatFile:
    """A float file's content, its layout, and the layer each operator's output tensor is from."""

    content: bytes
    layout: Layout
    layer_of: Mapping[str, str]


def convert_float(model: CompressedModel) -> FloatFile:
    """Return the model as a float32 file with batch norms folded, at the example inputs' batch.

    Inputs and outputs are named after ``model.inputs`` and ``model.outputs`` and lie in the
    layout that ``edgesdk_tflite.layout`` describes. Raises ``UnsupportedModel`` naming layer and
    operator where the model cannot be traced or holds what LiteRT has no operator for.
    A foreign network is converted by its own framework.
    """
    if isinstance(model.module, Foreign):
        return _adopt(model.module, model)
    program = export_model(model.module, model.example_inputs)
    made_of = _digest(program, model)
    if made_of not in _LAST:
        converted = _convert(model, layers_by_hierarchy(program))
        _LAST.clear()
        _LAST[made_of] = converted
    return _LAST[made_of]


def _adopt(network: Foreign, model: CompressedModel) -> FloatFile:
    """Return a foreign network's float file under the task's names, in the layout it has."""
    named = name_tensors(
        network.float_file(model.example_inputs),
        [spec.name for spec in model.inputs],
        [spec.name for spec in model.outputs],
        network.layer_of,
        {},
    )
    _require_builtin_operators(named.content, named.layer_of)
    file = parse_model(named.content)
    return FloatFile(
        content=named.content,
        layout=Layout(
            inputs=tuple(tuple(range(len(t.shape))) for t in file.inputs.values()),
            outputs=tuple(tuple(range(len(t.shape))) for t in file.outputs.values()),
        ),
        layer_of=named.layer_of,
    )


def _digest(program: ExportedProgram, model: CompressedModel) -> str:
    """Return a SHA-256 of all that a conversion reads: operators, layers, values and names."""
    names = [spec.name for spec in model.inputs] + [spec.name for spec in model.outputs]
    layers = sorted(layers_by_hierarchy(program).items())
    digest = hashlib.sha256(repr((str(program), layers, names)).encode())
    tensors: Iterable[tuple[str, object]] = (
        *sorted(program.state_dict.items()),
        *sorted(program.constants.items()),
        *((str(index), example) for index, example in enumerate(model.example_inputs)),
    )
    for name, value in tensors:
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(repr((value.dtype, value.shape)).encode())
            flat = value.detach().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _convert(model: CompressedModel, layers: Mapping[str, str]) -> FloatFile:
    layout = channels_last_layout(model.module, model.example_inputs)
    converted = _convert_in(layout, model, layers)
    better = without_transpositions(layout, parse_model(converted.content))
    return converted if better == layout else _convert_in(better, model, layers)


def _convert_in(layout: Layout, model: CompressedModel, layers: Mapping[str, str]) -> FloatFile:
    inputs = arrange(model.example_inputs, layout.inputs)
    with captured_output():
        wrapped = wrap(model.module, layout)
        content = _litert_torch_convert(wrapped, inputs)
    named = name_tensors(
        content,
        [spec.name for spec in model.inputs],
        [spec.name for spec in model.outputs],
        partial(layer_in_hierarchy, layers),
        linear_weights(model.module),
    )
    _require_builtin_operators(named.content, named.layer_of)
    return FloatFile(content=named.content, layout=layout, layer_of=named.layer_of)


def _litert_torch_convert(wrapped: nn.Module, inputs: Tensors) -> bytes:
    import litert_torch

    try:
        content: bytes = litert_torch.convert(wrapped, inputs).model_content()
    except Exception as problem:  # whatever the converter raises is about the model
        raise conversion_error(problem) from problem
    return content


def _require_builtin_operators(content: bytes, layer_of: Mapping[str, str]) -> None:
    """Raise ``UnsupportedModel`` for operators that the converter passes on and no runtime has."""
    for op in parse_model(content).operators:
        if op.name.startswith(("CUSTOM", "STABLEHLO_")) and op.name != "STABLEHLO_COMPOSITE":
            layer = layer_of.get(op.outputs[0].name, "") if op.outputs else ""
            where = f" at layer {layer!r}" if layer else ""
            raise UnsupportedModel(
                f"LiteRT has no operator for {op.name}{where}",
                expected="operators that LiteRT has",
                next_step="move that step (sorting, for instance) out of the model",
                details={"layer": layer, "operator": op.name},
            )
