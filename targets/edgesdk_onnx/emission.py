"""Emission: a compressed model becomes ``model.onnx``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgesdk.artifact import TensorSpec
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.errors import UnsupportedModel
from edgesdk.target import Emission, refuse_schemes
from edgesdk.task import InputSpec, OutputSpec
from edgesdk_onnx.export import export_float
from edgesdk_onnx.file import Tensor, read_file
from edgesdk_onnx.half import convert_to_half, find_overflow
from edgesdk_onnx.quantize import quantize_int8
from edgesdk_onnx.tensorrt import engine_command
from edgesdk_onnx.toolchain import find_capability, find_toolchain

FILE = "model.onnx"


def write_model(model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
    """Write ``model.onnx`` into the folder and return how to feed it.

    Inputs and outputs keep PyTorch's layout and types whatever the file computes in. Raises
    ``UnsupportedModel`` for a scheme that this target refuses for the runtime, and naming layer
    and operator where the model cannot be exported.
    """
    refuse_schemes(find_capability(runtime), model)
    _refuse_names(model)
    proto, layer_of = export_float(model)
    float16 = True
    if model.scheme == "fp16":
        convert_to_half(proto, model, layer_of)
    elif model.scheme == "int8":
        float16 = find_overflow(proto, model, layer_of) is None
        quantize_int8(proto, model, layer_of)
    (folder / FILE).write_bytes(proto.SerializeToString(deterministic=True))
    file = read_file(folder, FILE)
    return Emission(
        files=(FILE,),
        inputs=_specs(file.inputs, model.inputs),
        outputs=_specs(file.outputs, model.outputs),
        tool_versions={p.name: str(p.found) for p in find_toolchain().packages},
        layer_of=_kept(layer_of, {node.name for node in file.nodes}),
        device_commands=(engine_command(FILE, model.scheme, float16=float16),),
    )


def _refuse_names(model: CompressedModel) -> None:
    specs: tuple[InputSpec | OutputSpec, ...] = (*model.inputs, *model.outputs)
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UnsupportedModel(
            f"ONNX knows a tensor by its name alone, and {', '.join(twice)} is there twice",
            expected="a name of its own for every input and output",
            next_step="name them in the Task's inputs and outputs",
        )


def _specs(
    tensors: Sequence[Tensor], meanings: Sequence[InputSpec | OutputSpec]
) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=meaning.name,
            shape=tensor.shape,
            dtype=tensor.dtype,
            from_torch=tuple(range(len(tensor.shape))),
            labels=meaning.labels if isinstance(meaning, OutputSpec) else (),
        )
        for tensor, meaning in zip(tensors, meanings, strict=True)
    )


def _kept(layer_of: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: layer for name, layer in layer_of.items() if name in names}
