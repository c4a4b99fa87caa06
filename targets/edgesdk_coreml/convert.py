"""Conversion: a compressed model becomes ``model.mlpackage``, an ML program with fixed shapes."""

from __future__ import annotations

import json
import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from edgesdk.artifact import TensorSpec
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.document import to_builtins
from edgesdk.errors import UnsupportedModel
from edgesdk.layer_format import require_formats
from edgesdk.scheme import Scheme
from edgesdk.target import Emission, refuse_schemes
from edgesdk.trace import trace
from edgesdk_coreml.deployment import COMPUTE_UNITS, find_capability
from edgesdk_coreml.evaluate import refuse_unknown
from edgesdk_coreml.export import export_float, export_int8, layer_of, number_nodes, state_strides
from edgesdk_coreml.package import read_program
from edgesdk_coreml.palettes import TARGET_NAME
from edgesdk_coreml.seal import seal
from edgesdk_coreml.shrink import shrink_weights
from edgesdk_coreml.toolchain import find_toolchain, import_coremltools, quiet
from edgesdk_coreml.zeros import with_zeros

PACKAGE = "model.mlpackage"
METADATA_PREFIX = "edgesdk."
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def emit_package(model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
    """Write ``model.mlpackage`` into a folder and return how to feed and read it.

    Inputs and outputs keep PyTorch's layout and are float32 (int32 for integers) whatever the
    program computes in. Raises ``UnsupportedModel`` naming layer and operator for what PyTorch
    cannot export, coremltools cannot convert or the evaluator could not check, and for a scheme
    that ``capability`` refuses.
    """
    coremltools = import_coremltools()
    refuse_schemes(find_capability(runtime), model)
    if model.schemes - {"fp32", "fp16", "int8"} or model.layer_schemes:
        graph = trace(model.module, model.example_inputs, name="")
        require_formats(graph, TARGET_NAME, model.scheme, model.layer_schemes)
    model = with_zeros(model)
    program = export_int8(model) if model.scheme == "int8" else export_float(model)
    inputs = _specs(model.inputs, model.example_inputs)
    outputs = _specs(model.outputs, _output_values(program), labels=True)
    _check_names(inputs, outputs)
    handles = number_nodes(program)
    state_strides(program)
    package = folder / PACKAGE
    _convert(
        program,
        package,
        coremltools=coremltools,
        scheme=model.scheme,
        minimum_version=runtime.minimum_version,
        inputs=inputs,
        outputs=outputs,
        shrink=lambda converted: shrink_weights(converted, package, handles, model),
    )
    layers = seal(package, handles, _metadata(model, runtime))
    refuse_unknown(read_program(package).operations)
    return Emission(
        files=(PACKAGE,),
        inputs=inputs,
        outputs=outputs,
        tool_versions=_tool_versions(),
        layer_of=layers,
    )


def _convert(
    program: ExportedProgram,
    package: Path,
    *,
    coremltools: Any,
    scheme: Scheme,
    minimum_version: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    shrink: Callable[[Any], Any],
) -> None:
    single = scheme == "fp32"
    precision = coremltools.precision.FLOAT32 if single else coremltools.precision.FLOAT16
    try:
        with quiet():
            converted = coremltools.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target[minimum_version],
                compute_precision=precision,
                inputs=[
                    coremltools.TensorType(
                        name=spec.name, shape=spec.shape, dtype=np.dtype(spec.dtype).type
                    )
                    for spec in inputs
                ],
                outputs=[
                    coremltools.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type)
                    for spec in outputs
                ],
                skip_model_load=True,
            )
            converted.save(str(package))
            shrink(converted)
            # The copy it converted into would else stay until the process ends.
            shutil.rmtree(converted.package_path)
    except OSError:
        raise
    except Exception as problem:
        raise _conversion_failure(problem, program) from problem


def _conversion_failure(problem: Exception, program: ExportedProgram) -> UnsupportedModel:
    """Return the error that names the operator the converter was at, and its layer."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    step = "replace the operator in the model, or choose another target"
    node = _failing_node(problem, program)
    if node is None:
        return UnsupportedModel(f"Core ML cannot take the model: {text}", next_step=step)
    layer = layer_of(node)
    where = f"layer {layer!r}" if layer else "the model's own forward"
    return UnsupportedModel(
        f"Core ML cannot take the operator {node.target} of {where}: {text}",
        next_step=step,
        details={"operator": str(node.target), "layer": layer},
    )


def _failing_node(problem: Exception, program: ExportedProgram) -> Node | None:
    # coremltools goes through the graph node by node and keeps each in a variable "node"; what
    # it raises seldom says which one it was.
    nodes = {node.name: node for node in program.graph.nodes if node.op == "call_function"}
    found = None
    for frame, _ in traceback.walk_tb(problem.__traceback__):
        name = getattr(frame.f_locals.get("node"), "name", "")
        found = nodes.get(str(name), found)
    return found


def _output_values(program: ExportedProgram) -> tuple[Tensor, ...]:
    """Return the outputs as exporting traced them: shapes and types without contents."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    return tuple(values[str(name)] for name in program.graph_signature.user_outputs)


def _specs(
    specs: tuple[Any, ...], tensors: tuple[Tensor, ...], labels: bool = False
) -> tuple[TensorSpec, ...]:
    if len(specs) != len(tensors):
        raise UnsupportedModel(
            f"the model has {len(tensors)} tensors where {len(specs)} are described: "
            f"{', '.join(spec.name for spec in specs)}",
            expected="one spec for each input and output",
        )
    return tuple(
        TensorSpec(
            name=spec.name,
            shape=tuple(int(size) for size in tensor.shape),
            dtype=_dtype(spec.name, tensor),
            from_torch=tuple(range(tensor.dim())),
            labels=spec.labels if labels else (),
        )
        for spec, tensor in zip(specs, tensors, strict=True)
    )


def _dtype(name: str, tensor: Tensor) -> str:
    if tensor.dtype.is_floating_point:
        return "float32"
    if tensor.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        return "int32"
    raise UnsupportedModel(
        f"{name!r} is {tensor.dtype}, which Core ML has no inputs and outputs of",
        expected="floating point or integer tensors",
        next_step="use int32 there, and compare it with 0 or convert to it inside of forward",
    )


def _check_names(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    names = [spec.name for spec in (*inputs, *outputs)]
    for name in names:
        if not _NAME.fullmatch(name) or names.count(name) > 1:
            raise UnsupportedModel(
                f"Core ML cannot name an input or output {name!r}",
                expected="names of letters, digits and underscores, each used once",
                next_step="change the name in the Task's inputs or outputs",
            )


def _metadata(model: CompressedModel, runtime: Runtime) -> dict[str, str]:
    """Return what an app can read from the model: meaning of inputs and outputs, labels, units."""
    entries = {
        "scheme": model.scheme,
        "minimum_version": runtime.minimum_version,
        "compute_units": COMPUTE_UNITS[runtime.unit],
    }
    for direction, specs in (("input", model.inputs), ("output", model.outputs)):
        for spec in specs:
            entries[f"{direction}.{spec.name}"] = json.dumps(to_builtins(spec), sort_keys=True)
    return {f"{METADATA_PREFIX}{key}": value for key, value in entries.items()}


def _tool_versions() -> dict[str, str]:
    found = {package.name: package.found or "" for package in find_toolchain().packages}
    return {**found, "torch": torch.__version__}
