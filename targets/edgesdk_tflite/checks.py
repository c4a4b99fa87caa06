"""What re-reading the emitted file proves: its types, weights, inputs and outputs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgesdk.artifact import Check, TensorSpec
from edgesdk.compressed import CompressedModel
from edgesdk.export import export_model
from edgesdk.foreign import Foreign
from edgesdk.layer_format import name_exceptions
from edgesdk.scheme import Scheme
from edgesdk.target import Emission
from edgesdk_tflite.attribution import scaled_to
from edgesdk_tflite.exported import (
    KernelElements,
    kernel_elements,
    outputs_follow_inputs,
)
from edgesdk_tflite.flatbuffer import FileOperator, FileTensor, ModelFile, parse_model
from edgesdk_tflite.layer_recipes import (
    STATIC_TYPES,
    layer_behind,
    layer_formats,
    scheme_found,
    unasked_islands,
)
from edgesdk_tflite.layout import moves_channels
from edgesdk_tflite.operators import computing_type, quantized_otherwise
from edgesdk_tflite.quiet import captured_output

_BYTES: Mapping[str, float] = {"float32": 4, "float16": 2, "int8": 1, "int4": 0.5}
_INTEGERS = tuple(STATIC_TYPES.values())
# An int4 weight is off by half a step; the blocks' scales are rounded to float16.
_INT4_STEPS = 0.5 + 7 * 2.0**-11
# Factors that the converter folded in are estimated from the rounded kernel, which leaves up to
# another half where rows or columns are short.
_FREE_FACTORS = 2
_SCALED_INT4_STEPS = 1.0


def check_file(file: ModelFile, emission: Emission, model: CompressedModel) -> tuple[Check, ...]:
    """Return every check on a file against what ``emit`` said of it and the model it came from."""
    expected, follows = _expected(model)
    return (
        _tensors_as_stated(file, emission),
        _shapes_of_the_model(emission, model),
        _no_layout_transposition(file, emission),
        _arithmetic(file, emission, model),
        _one_kind_of_io(file, model.scheme),
        _kernel_storage(file),
        _layer_schemes(file, emission, model),
        _int4_weights(file, emission, model),
        _kernel_count(file, expected),
        _constants_inside(file),
        _outputs_computed(file, emission, follows),
    )


def _expected(model: CompressedModel) -> tuple[KernelElements, tuple[bool, ...]]:
    """Return how many kernel elements the model has, and which outputs follow the inputs.

    A foreign network is known by its float file, whose numbers parity compares with it; none of
    its outputs may be a constant.
    """
    if isinstance(model.module, Foreign):
        file = parse_model(model.module.float_file(model.example_inputs))
        sizes = {kernel.buffer: kernel.elements for _, kernel in file.kernels()}
        elements = sum(sizes.values())
        return KernelElements(least=elements, most=elements), (True,) * len(model.outputs)
    with captured_output():
        program = export_model(model.module, model.example_inputs)
        return kernel_elements(program), outputs_follow_inputs(program)


def _tensors_as_stated(file: ModelFile, emission: Emission) -> Check:
    wrong = [
        *_differences("input", emission.inputs, file.inputs),
        *_differences("output", emission.outputs, file.outputs),
    ]
    stated = [f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in emission.inputs]
    return Check(
        name="inputs and outputs are those stated",
        passed=not wrong,
        detail="; ".join(wrong) or f"takes {', '.join(stated)}",
    )


def _differences(
    kind: str, specs: Sequence[TensorSpec], tensors: Mapping[str, FileTensor]
) -> list[str]:
    if [spec.name for spec in specs] != list(tensors):
        return [f"the file's {kind}s are {list(tensors)}"]
    wrong = []
    for spec, tensor in zip(specs, tensors.values(), strict=True):
        found = (tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point)
        stated = (spec.shape, spec.dtype, spec.scale, spec.zero_point)
        if found != stated:
            wrong.append(f"{kind} {spec.name} is {found} in the file and was stated as {stated}")
    return wrong


def _shapes_of_the_model(emission: Emission, model: CompressedModel) -> Check:
    wrong = []
    for spec, example in zip(emission.inputs, model.example_inputs, strict=True):
        expected = tuple(example.shape[axis] for axis in spec.from_torch)
        if spec.shape != expected:
            wrong.append(f"{spec.name} is {list(spec.shape)}, the example gives {list(expected)}")
    return Check(
        name="input shapes follow from the example inputs",
        passed=not wrong,
        detail="; ".join(wrong) or "every axis is where the layout says",
    )


def _no_layout_transposition(file: ModelFile, emission: Emission) -> Check:
    moved = [
        spec.name
        for spec in emission.inputs
        if spec.name in file.inputs
        and moves_channels(file, file.inputs[spec.name], spec.from_torch)
    ]
    return Check(
        name="no input is transposed to another layout",
        passed=not moved,
        detail=f"the file transposes {', '.join(moved)} first" if moved else "read as they come",
    )


def _arithmetic(file: ModelFile, emission: Emission, model: CompressedModel) -> Check:
    static = STATIC_TYPES.get(model.scheme)
    if static is not None:
        islands = unasked_islands(file, emission.layer_of, model)
        strangers = quantized_otherwise(file, static)
        found = {"in float": islands, f"not in {static}": strangers}
        wrong = [f"{how}: {_named(ops)}" for how, ops in found.items() if ops]
        return Check(
            name=f"arithmetic is {static}",
            passed=not wrong,
            detail="; ".join(wrong) or f"{len(file.operators)} operators",
        )
    integer = sorted({op.name for op in file.operators if computing_type(op) in _INTEGERS})
    return Check(
        name="arithmetic is floating point",
        passed=not integer,
        detail=f"in integers: {', '.join(integer)}"
        if integer
        else f"{len(file.operators)} operators",
    )


def _named(operators: Sequence[FileOperator]) -> str:
    return ", ".join(sorted({f"{op.name} ({op.outputs[0].name})" for op in operators}))


def _one_kind_of_io(file: ModelFile, scheme: Scheme) -> Check:
    """Quantized inputs and outputs are all integers or all float; what nothing reads is neither."""
    tensors = (*(t for t in file.inputs.values() if file.consumers(t)), *file.outputs.values())
    kinds = {t.dtype for t in tensors if t.dtype.startswith("float") or t.scales}
    allowed = [
        {"float32"},
        set[str](),
        *({static} for static in (STATIC_TYPES.get(scheme),) if static),
    ]
    return Check(
        name="inputs and outputs are of one kind",
        passed=kinds in allowed,
        detail=" and ".join(sorted(kinds)) or "integers as the model takes them",
    )


def _kernel_storage(file: ModelFile) -> Check:
    """Kernels take the bytes that their type takes, and hold finite values or have scales."""
    wrong = []
    total = 0
    for _, kernel in file.kernels():
        assert kernel.data is not None
        total += len(kernel.data)
        if len(kernel.data) != math.ceil(kernel.elements * _BYTES.get(kernel.dtype, 0)):
            wrong.append(f"{kernel.name}: {len(kernel.data)} bytes for {kernel.elements} elements")
        elif kernel.dtype in ("float32", "float16") and not _is_finite(kernel):
            wrong.append(f"{kernel.name} holds infinity or NaN")
        elif kernel.dtype.startswith("int") and not (kernel.scales or kernel.block_size):
            wrong.append(f"{kernel.name} has no scale")
    return Check(
        name="kernels are whole",
        passed=not wrong,
        detail="; ".join(wrong) or f"{total} bytes",
    )


def _layer_schemes(file: ModelFile, emission: Emission, model: CompressedModel) -> Check:
    """Every convolution and linear layer is in its scheme, kernel and arithmetic both.

    A layer that LiteRT cannot have in the scheme asked for is in the one that the rules name, and
    is named here too.
    """
    wrong, counts, exceptions = [], Counter[str](), []
    missing = dict(model.layer_schemes)
    for op, kernel, wanted in layer_formats(file, emission.layer_of, model):
        layer = layer_behind(op.outputs[0].name, emission.layer_of)
        missing.pop(layer, None)
        found = scheme_found(op, kernel)
        exceptions.append((layer or op.outputs[0].name, wanted))
        counts[found] += 1
        if found != wanted.scheme:
            wrong.append(f"{op.name} ({kernel.name}, {kernel.dtype}) is {found}")
    # A scheme that no kernel was seen to have may be on another layer, or on none.
    wrong += [f"no kernel is known to be {layer}'s" for layer in missing]
    told = ", ".join(f"{count} in {scheme}" for scheme, count in sorted(counts.items()))
    named = name_exceptions(exceptions)
    return Check(
        name="layers are in their schemes",
        passed=not wrong,
        detail="; ".join(wrong) or f"{told or 'no kernels'}" + (f"; {named}" if named else ""),
    )


def _int4_weights(file: ModelFile, emission: Emission, model: CompressedModel) -> Check:
    """int4 kernels decode to the model's own weights, each within half a step of its block.

    At int4 the outputs alone say little: rounding leaves noise near the signal. Rows and columns
    may have a factor (a layer norm's gain, attention's scale) that the converter folded in.
    """
    wrong, compared = [], 0
    for op, kernel in file.kernels():
        if kernel.dtype != "int4":
            continue
        layer = layer_behind(op.outputs[0].name, emission.layer_of)
        named = dict(model.module.named_parameters())
        # Attention keeps the weights of query, key and value as one, by another name.
        weight = named.get(f"{layer}.weight", named.get(f"{layer}.in_proj_weight"))
        if weight is None or tuple(weight.shape) != kernel.shape or not kernel.block_size:
            wrong.append(f"{kernel.name}: there is no such weight in layer {layer!r}")
            continue
        compared += 1
        scales = kernel.spread_scales()
        decoded, own = kernel.int4_values() * scales, weight.detach().numpy()
        if bool((own.any(1) & ~decoded.any(1)).any()):
            wrong.append(f"{kernel.name}: a row is zero that is not zero in the model")
            continue
        if _off(decoded, own, scales) <= _INT4_STEPS:
            continue
        if min(own.shape) <= _FREE_FACTORS:  # factors of rows and columns would fit anything
            wrong.append(f"{kernel.name}: off by {_off(decoded, own, scales):.2f} steps")
            continue
        steps = _off(decoded, scaled_to(decoded, own), scales)
        if steps > _SCALED_INT4_STEPS:
            wrong.append(f"{kernel.name}: off by up to {steps:.2f} steps")
    return Check(
        name="int4 weights are those of the model",
        passed=not wrong,
        detail="; ".join(wrong) or f"{compared} kernels compared",
    )


def _off(
    decoded: NDArray[np.float32], own: NDArray[np.float32], scales: NDArray[np.float32]
) -> float:
    """Return by how many steps a kernel is off at most; a step of a block of zeros is nothing."""
    return float(((np.abs(decoded - own) - 1e-6) / np.maximum(scales, 1e-12)).max())


def _is_finite(kernel: FileTensor) -> bool:
    assert kernel.data is not None
    return bool(np.isfinite(kernel.data.view(kernel.dtype)).all())


def _kernel_count(file: ModelFile, expected: KernelElements) -> Check:
    """The file multiplies by as many kernel elements as the model.

    Folding a batch norm rescales a kernel and adds to a bias but never changes how many elements
    a kernel has, so the count is exact; biases and batch norms, which folding merges, do not
    enter. A file emitted from another (say, the unpruned) network fails.
    """
    sizes = {kernel.buffer: kernel.elements for _, kernel in file.kernels()}
    found = sum(sizes.values())
    wanted = f"{expected.least}"
    if expected.most != expected.least:
        wanted += f" to {expected.most}, as some are used more than once"
    return Check(
        name="kernel elements are those of the model",
        passed=expected.least <= found <= expected.most,
        detail=f"{found} in the file, {wanted} in the model",
    )


def _constants_inside(file: ModelFile) -> Check:
    """TensorFlow Lite Micro computes garbage from constants behind the flatbuffer, silently."""
    outside = file.constants_outside
    return Check(
        name="constants are inside the flatbuffer",
        passed=outside == 0,
        detail=f"{outside} are behind it" if outside else "all of them",
    )


def _outputs_computed(file: ModelFile, emission: Emission, follows: tuple[bool, ...]) -> Check:
    reached = {tensor.key for tensor in file.inputs.values()}
    for op in file.operators:
        if any(tensor is not None and tensor.key in reached for tensor in op.inputs):
            reached.update(tensor.key for tensor in op.outputs)
    constant = [
        spec.name
        for spec, follow in zip(emission.outputs, follows, strict=True)
        if follow and spec.name in file.outputs and file.outputs[spec.name].key not in reached
    ]
    return Check(
        name="outputs are computed from the inputs",
        passed=not constant,
        detail=f"{', '.join(constant)} is a constant" if constant else "every one",
    )
