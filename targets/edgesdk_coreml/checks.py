"""Checks: what reading a saved package back proves or disproves about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from edgesdk.artifact import Check
from edgesdk.compress.pt2e import calibration_batches
from edgesdk.compressed import CompressedModel
from edgesdk.errors import ArtifactError, UnsupportedModel
from edgesdk.layer_format import LayerFormat, name_exceptions
from edgesdk.parity import MINIMUM_SQNR_DB, sqnr_db
from edgesdk.target import Arrays, Emission
from edgesdk.task import Tensors
from edgesdk_coreml.dataflow import Dataflow
from edgesdk_coreml.deployment import SPECIFICATION_VERSIONS
from edgesdk_coreml.evaluate import evaluator
from edgesdk_coreml.package import Program, read_program
from edgesdk_coreml.shrink import OperationFormats
from edgesdk_coreml.simulate import simulate_model
from edgesdk_coreml.weights import check_weights

Run = Callable[[Arrays], Arrays]

_SAMPLES = 16

# float16 scales move a value by up to 6 % of an int8 step and float16 sums by as much, so at most
# one value in eight falls on the neighbouring step: noise of 0.12 steps squared, where rounding
# to int8 itself makes 1/12 (Bennett 1948, "Spectra of quantized signals"). 6 dB leaves more than
# twice that.
_INT8_MARGIN_DB = 6.0


_NOT_EVALUATED = Check(
    name="graph evaluated",
    passed=False,
    detail="not evaluated, for it does not take the inputs that were promised",
)


def check_package(package: Path, emission: Emission, model: CompressedModel) -> tuple[Check, ...]:
    """Return what a saved package's own bytes say, one check for each promise made about it.

    A package that cannot be read, or holds what nothing here emits, gives one failed check.
    """
    try:
        program = read_program(package)
        run = evaluator(program)
        flow = Dataflow(program)
        features = _check_features(program, emission, model)
        return (
            Check(name="package opens", passed=True, detail=f"{len(flow.computed)} operations"),
            _check_deployment(program),
            features,
            _check_precision(flow, emission, model),
            check_weights(flow, emission.layer_of, model),
            _check_graph(run, emission, model) if features.passed else _NOT_EVALUATED,
        )
    except (ArtifactError, UnsupportedModel) as problem:
        return (Check(name="package opens", passed=False, detail=str(problem)),)


def _check_deployment(program: Program) -> Check:
    asked = program.metadata.get("edgesdk.minimum_version", "")
    version = SPECIFICATION_VERSIONS.get(asked)
    expected = (version, f"CoreML{version - 1}" if version else "")
    found = (program.specification_version, program.opset)
    detail = f"specification {found[0]}, operators {found[1]}, for {asked or 'no stated system'}"
    return Check(name="deployment target", passed=found == expected, detail=detail)


def _check_features(program: Program, emission: Emission, model: CompressedModel) -> Check:
    found = [
        (value.name, value.dtype, value.shape)
        for value in (*program.input_features, *program.output_features)
    ]
    promised = [
        (spec.name, spec.dtype, spec.shape) for spec in (*emission.inputs, *emission.outputs)
    ]
    names = [spec.name for spec in model.inputs] + [spec.name for spec in model.outputs]
    passed = found == promised and [name for name, _, _ in found] == names
    listed = ", ".join(f"{name} {dtype} {list(shape)}" for name, dtype, shape in found)
    detail = listed if passed else f"the file has {listed} where {promised} was promised"
    return Check(name="inputs and outputs", passed=passed, detail=detail)


def _check_precision(flow: Dataflow, emission: Emission, model: CompressedModel) -> Check:
    if model.schemes == {"int8"}:
        return _check_int8(flow)
    if model.schemes <= {"fp32", "fp16"}:
        return _check_float(flow, model)
    return _check_layers(flow, emission, model)


def _check_layers(flow: Dataflow, emission: Emission, model: CompressedModel) -> Check:
    """Every layer is in its scheme, weights and arithmetic both; what cannot be is named."""
    wrong, counts, exceptions = [], Counter[str](), []
    formats = OperationFormats(model)
    missing = dict(model.layer_schemes)
    for op in flow.weighted():
        layer = emission.layer_of.get(op.name, "")
        missing.pop(layer, None)
        # Products of constants by anything are no layers, and stay in float.
        own = formats.find(op.kind, flow.weight_shape(op), layer)
        wanted = LayerFormat(scheme="fp16") if own is None else own
        found = flow.scheme_found(op)
        counts[found] += 1
        exceptions.append((layer or op.name, wanted))
        if found != wanted.scheme:
            wrong.append(f"{op.name} is {found}")
    told = ", ".join(f"{count} in {scheme}" for scheme, count in sorted(counts.items()))
    named = name_exceptions(exceptions)
    detail = f"{told or 'none'} of {counts.total()} layers" + (f"; {named}" if named else "")
    detail += f"; not as asked: {', '.join(wrong)}" if wrong else ""
    # A scheme that no operation was seen to have may be on another layer, or on none.
    detail += f"; no operation is known to be of {', '.join(missing)}" if missing else ""
    passed = bool(counts) and not wrong and not missing
    return Check(name="precision", passed=passed, detail=detail)


def _check_int8(flow: Dataflow) -> Check:
    """Every operation with weights must read int8 weights and int8 inputs; the rest is listed."""
    layers = list(flow.weighted())
    left = [op.name for op in layers if not flow.computes_int8(op)]
    islands = [
        op.name
        for op in flow.computed
        if flow.compute_dtype(op).startswith("float") and op.kind != "cast" and op.name not in left
    ]
    detail = f"{len(layers) - len(left)} of {len(layers)} layers have int8 weights and inputs"
    detail += f"; left in float: {', '.join(left)}" if left else ""
    detail += f"; computed in float between them: {', '.join(islands)}" if islands else ""
    return Check(name="precision", passed=bool(layers) and not left, detail=detail)


def _check_float(flow: Dataflow, model: CompressedModel) -> Check:
    wanted = {"fp16": "float16", "fp32": "float32"}[model.scheme]
    # A cast is how a float16 program takes and gives the float32 of its inputs and outputs.
    others = [
        f"{value.name} is {value.dtype}"
        for op in flow.program.operations
        for value in op.outputs
        if value.dtype.startswith("float") and value.dtype != wanted and op.kind != "cast"
    ]
    others += [
        f"the weight of {op.name} is {weight.dtype.name}"
        for op in flow.weighted()
        if (weight := flow.stored_weight(op)) is not None and weight.dtype.name != wanted
    ]
    detail = "; ".join(others) if others else f"everything is computed and stored in {wanted}"
    return Check(name="precision", passed=not others, detail=detail)


def _check_graph(run: Run, emission: Emission, model: CompressedModel) -> Check:
    """Compare what the file says with PyTorch, int8 with the calibrated graph it came from."""
    batches = _samples(model)
    dtypes = [spec.dtype for spec in emission.inputs]
    actual = _joined(
        [tuple(map(torch.from_numpy, run(_arrays(batch, dtypes)))) for batch in batches]
    )
    module = simulate_model(replace(model, scheme="fp32", layer_schemes={}))
    exact = _joined([module(*batch) for batch in batches])
    wanted, against, minimum = exact, "the PyTorch model", MINIMUM_SQNR_DB[model.scheme]
    if model.coarsest not in ("fp32", "fp16"):
        quantized = simulate_model(model)
        wanted = _joined([quantized(*batch) for batch in batches])
        against = "the network quantized in PyTorch"
        own = sqnr_db(exact, wanted) or 0.0
        minimum = min(max(minimum, own - _INT8_MARGIN_DB), MINIMUM_SQNR_DB["fp16"])
    found = sqnr_db(wanted, actual)
    ratio = "not finite" if found is None else f"{found:.1f} dB"
    return Check(
        name="graph evaluated",
        passed=found is not None and found >= minimum,
        detail=(
            f"signal to noise {ratio} against {against} over {wanted[0].shape[0]} samples, at "
            f"least {minimum:.1f} dB is right; interpreted from the file, not run by Core ML"
        ),
    )


def _samples(model: CompressedModel) -> list[Tensors]:
    """Return batches as the file takes them: calibration data, else noise about the examples."""
    examples = model.example_inputs
    count = max(1, _SAMPLES // examples[0].shape[0])
    if model.calibration:
        return list(islice(calibration_batches(model), count))
    random = torch.Generator().manual_seed(0)
    return [
        tuple(
            example + torch.randn(example.shape, generator=random)
            if example.is_floating_point()
            else example
            for example in examples
        )
        for _ in range(count)
    ]


def _arrays(batch: Tensors, dtypes: list[str]) -> Arrays:
    return [tensor.numpy().astype(dtype) for tensor, dtype in zip(batch, dtypes, strict=True)]


def _joined(batches: list[Tensors]) -> Tensors:
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
