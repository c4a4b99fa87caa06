"""Operators that TensorFlow Lite Micro has in float alone, and LiteRT in int8 as well."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.errors import UnsupportedModel
from edgesdk_tflite.flatbuffer import ModelFile
from edgesdk_tflite.layer_recipes import place
from edgesdk_tflite.operators import computing_type

# Of all that the quantizer gives an int8 form (ai-edge-quantizer 0.10): its kernel loads, and
# every inference then fails (tensorflow/lite/micro/kernels/elementwise.cc).
FLOAT_ONLY = frozenset({"SQRT"})


def require_int8_kernels(file: ModelFile, layer_of: Mapping[str, str]) -> None:
    """Raise ``UnsupportedModel`` for an int8 operator that runs in float alone there."""
    refused = [
        op for op in file.operators if op.name in FLOAT_ONLY and computing_type(op) == "int8"
    ]
    if not refused:
        return
    names = [(op.name, op.outputs[0].name) for op in refused]
    raise UnsupportedModel(
        "TensorFlow Lite Micro has no int8 kernel for "
        + ", ".join(f"{operator} at {place(tensor, layer_of)}" for operator, tensor in names),
        expected="operators that it computes in int8",
        next_step="replace that operator, move it out of the model, or use fp32 (--scheme fp32)",
        details={"operators": [f"{operator} at {tensor}" for operator, tensor in names]},
    )
