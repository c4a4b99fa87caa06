"""Write ``model.tflite`` in the asked precision and say how to feed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgesdk.artifact import TensorSpec
from edgesdk.compressed import CompressedModel
from edgesdk.layer_format import require_formats
from edgesdk.scheme import CALIBRATED_SCHEMES, DYNAMIC_SCHEMES
from edgesdk.target import Emission
from edgesdk.trace import trace
from edgesdk_tflite.convert import convert_float
from edgesdk_tflite.flatbuffer import FileTensor, read_model
from edgesdk_tflite.layout import Permutation
from edgesdk_tflite.packages import NAME, tool_versions
from edgesdk_tflite.quantize import (
    calibration_data,
    quantize_static,
    quantize_weights,
    store_float16,
)

MODEL = "model.tflite"


def emit_model(model: CompressedModel, folder: Path, *, integer_io: bool) -> Emission:
    """Write the model's file in its scheme and return the emission, read back from the file."""
    # Before the conversion, which takes longer than finding out that the data is unusable.
    calibration = calibration_data(model) if model.scheme in CALIBRATED_SCHEMES else ()
    if model.layer_schemes or model.scheme in DYNAMIC_SCHEMES:
        graph = trace(model.module, model.example_inputs, name="")
        require_formats(graph, NAME, model.scheme, model.layer_schemes)
    converted = convert_float(model)
    if model.scheme in CALIBRATED_SCHEMES:
        content = quantize_static(converted, calibration, model, integer_io=integer_io)
    elif model.scheme == "fp16":
        content = store_float16(converted)
    elif model.schemes == {"fp32"}:
        content = converted.content
    else:
        content = quantize_weights(converted, model)
    (folder / MODEL).write_bytes(content)
    file = read_model(folder / MODEL)
    unlabelled: list[tuple[str, ...]] = [()] * len(file.inputs)
    return Emission(
        files=(MODEL,),
        inputs=_specs(file.inputs, converted.layout.inputs, unlabelled),
        outputs=_specs(
            file.outputs, converted.layout.outputs, [spec.labels for spec in model.outputs]
        ),
        tool_versions=tool_versions(),
        layer_of=converted.layer_of,
    )


def _specs(
    tensors: Mapping[str, FileTensor],
    orders: Sequence[Permutation],
    labels: Sequence[tuple[str, ...]],
) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=name,
            shape=tensor.shape,
            dtype=tensor.dtype,
            from_torch=order,
            scale=tensor.scale,
            zero_point=tensor.zero_point,
            labels=names,
        )
        for (name, tensor), order, names in zip(tensors.items(), orders, labels, strict=True)
    )
