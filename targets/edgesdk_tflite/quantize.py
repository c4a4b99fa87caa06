"""A float ``.tflite`` file becomes one with integer arithmetic, or with narrow weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgesdk.compress.pt2e import calibration_batches
from edgesdk.compressed import CompressedModel
from edgesdk.errors import TaskError, UnsupportedModel
from edgesdk.scheme import ACTIVATION_BYTES, DYNAMIC_SCHEMES, Scheme
from edgesdk.task import Tensors
from edgesdk_tflite.boundary import with_float_boundary
from edgesdk_tflite.convert import SIGNATURE, FloatFile
from edgesdk_tflite.flatbuffer import pack, parse_model, unpack
from edgesdk_tflite.layer_recipes import add_layer_recipes, place, unasked_islands
from edgesdk_tflite.layout import arrange
from edgesdk_tflite.operators import CONVERSIONS, kernels_not_in
from edgesdk_tflite.quiet import captured_output
from edgesdk_tflite.rewrite import ready_for_integers

_FORMS: Mapping[Scheme, str] = {"int8": "int8", "w8a16": "int16"}
_INSTEAD: Mapping[Scheme, str] = {
    "int8": "replace them (ReLU or Hardswish for another activation), or use fp16 or fp32",
    "w8a16": "replace them (ReLU for another activation), or use int8, which more operators have",
}


def calibration_data(model: CompressedModel) -> tuple[Tensors, ...]:
    """Return all calibration samples as batches of the file's size.

    Raises ``TaskError`` for data that is missing, not finite or of the wrong shape.
    """
    batches = tuple(calibration_batches(model))
    for spec, tensors in zip(model.inputs, zip(*batches, strict=True), strict=True):
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise TaskError(
                f"the calibration data of input {spec.name!r} holds NaN or infinity",
                expected="finite values like those of the deployed inputs",
            )
    return batches


def quantize_static(
    float_file: FloatFile, calibration: Sequence[Tensors], model: CompressedModel, *,
    integer_io: bool,
) -> bytes:  # fmt: skip
    """Return the file with integer weights and activations, calibrated on all of ``calibration``.

    ``int8`` is ai-edge-quantizer's ``static_wi8_ai8``: weights symmetric with one scale per output
    channel, activations with one scale and zero point per tensor, biases int32 (Jacob et al. 2018,
    "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference"). ``w8a16`` is its ``static_wi8_ai16``: the same weights, int16 activations without
    zero points, biases int64. Ranges are the smallest and largest value over all samples, whatever
    their order and batches; the tool's own default, a moving average, clips: with it ResNet-20 on
    CIFAR-10 kept 14 dB of signal to noise at the logits in int8, with this 30 dB.

    Around layers that ``model.layer_schemes`` takes out of int8 it converts to and from float.
    With ``integer_io`` the file takes and returns those integers, otherwise float around the same
    graph. Raises ``UnsupportedModel`` where an operator stays in float: a file that is quantized
    in name only is of no use.
    """
    from ai_edge_quantizer import calibrator, qtyping, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    float_file = replace(float_file, content=ready_for_integers(float_file.content))
    recipes = recipe_manager.RecipeManager()
    recipes.add_static_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=round(8 * ACTIVATION_BYTES[model.scheme]),
        weight_num_bits=8,
    )
    add_layer_recipes(recipes, float_file, model)
    samples = [_as_file_inputs(float_file, batch) for batch in calibration]
    with _quantizing():
        ranges = calibrator.Calibrator(
            float_file.content, num_threads=1, qsv_update_func=qsv_utils.min_max_update
        )
        ranges.calibrate({SIGNATURE: samples}, recipes)
        content = _apply(recipes, float_file, ranges.get_model_qsvs())
    _require_integers(content, float_file.layer_of, model)
    return content if integer_io else with_float_boundary(content)


def quantize_weights(float_file: FloatFile, model: CompressedModel) -> bytes:
    """Return the file with narrow weights and float between its layers, each in its scheme.

    ``int8_dynamic`` and ``int4_dynamic`` kernels multiply in int8 with the range of what they read
    found at run time.
    """
    from ai_edge_quantizer import qtyping, recipe_manager

    recipes = recipe_manager.RecipeManager()
    everything = qtyping.TFLOperationName.ALL_SUPPORTED
    if model.scheme in DYNAMIC_SCHEMES:
        recipes.add_dynamic_config(regex=".*", operation_name=everything, num_bits=8)
    add_layer_recipes(recipes, float_file, model)
    with _quantizing():
        return _apply(recipes, float_file, None)


def store_float16(float_file: FloatFile) -> bytes:
    """Return the file with the kernels of convolutions and matrix products stored as float16.

    A DEQUANTIZE in front of each restores float32: on the CPU (XNNPACK) that happens once, when
    the file is loaded, and arithmetic is float32; GPU and NPU delegates compute in float16.
    Activations and biases stay float32 in the file. Raises ``UnsupportedModel`` for a kernel that
    cannot be stored so (a batched product with a constant).
    """
    from ai_edge_quantizer import qtyping, recipe_manager

    recipes = recipe_manager.RecipeManager()
    recipes.add_weight_only_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key="float_casting",
    )
    with _quantizing():
        content = _apply(recipes, float_file, None)
    left = kernels_not_in(parse_model(content), "float16")
    if left:
        raise UnsupportedModel(
            f"float16 weights are not possible for {', '.join(left)}: they stay float32",
            next_step="compile with fp32, or express the product as a Linear layer",
        )
    return content


@contextmanager
def _quantizing() -> Iterator[None]:
    """Silence the quantizer; what it raises is about the model it cannot quantize."""
    try:
        with captured_output():
            yield
    except Exception as problem:
        said = str(problem).strip().split("\n", 1)[0] or type(problem).__name__
        raise UnsupportedModel(
            f"ai-edge-quantizer cannot quantize the converted model: {said}",
            next_step="compile with fp32, or use another target",
        ) from problem


def _apply(recipes: Any, float_file: FloatFile, ranges: Any) -> bytes:
    """Return the float file quantized by the recipes, with these activation ranges if any."""
    from ai_edge_quantizer import quantizer

    result = quantizer.Quantizer(float_file.content, recipes.get_quantization_recipe()).quantize(
        ranges, enable_progress_bar=False, enable_progress_report=False
    )
    # The quantizer puts constants of 256 KiB and more together behind the flatbuffer.
    return pack(unpack(bytes(result.quantized_model)))


def _as_file_inputs(float_file: FloatFile, batch: Tensors) -> Mapping[str, NDArray[np.generic]]:
    """Return one calibration batch in the file's layout and types, by input name."""
    inputs = parse_model(float_file.content).inputs
    arranged = arrange(batch, float_file.layout.inputs)
    return {
        name: tensor.detach().numpy().astype(spec.dtype)
        for (name, spec), tensor in zip(inputs.items(), arranged, strict=True)
    }


def _require_integers(content: bytes, layer_of: Mapping[str, str], model: CompressedModel) -> None:
    islands = unasked_islands(parse_model(content), layer_of, model)
    computing = [op for op in islands if op.name not in CONVERSIONS] or islands
    if not computing:
        return
    named = sorted({f"{op.name} at {place(op.outputs[0].name, layer_of)}" for op in computing})
    raise UnsupportedModel(
        f"{model.scheme} is not possible for {', '.join(named)}: float arithmetic would remain",
        expected=f"operators that the quantizer has an {_FORMS[model.scheme]} form of",
        next_step=_INSTEAD[model.scheme],
        details={"operators": named},
    )
