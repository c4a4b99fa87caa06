"""Export: a float model through ``torch.export`` and torch's ONNX exporter into a plain graph."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from edgesdk.compressed import CompressedModel
from edgesdk.errors import UnsupportedModel, first_line
from edgesdk.export import export_model
from edgesdk_onnx.tensorrt import IR_VERSION, OPERATORS, OPSET

_SCOPES = "pkg.torch.onnx.name_scopes"
_LARGEST_BYTES = 2**31 - 1  # a protobuf message cannot be longer


def export_float(model: CompressedModel) -> tuple[Any, dict[str, str]]:
    """Return the model as a float32 ``ModelProto``, and the layer of each of its nodes by name.

    Inputs and outputs are named by the model's specs. Constants are computed, batch norms behind a
    convolution folded into it. Nodes are called ``layer/operator``, which is what TensorRT's
    profiler shows; the same model gives the same bytes.

    Raises ``UnsupportedModel`` naming layer and operator where torch cannot export the model or
    TensorRT's parser does not read what it exports.
    """
    proto = _translate(model)
    layers = {name for name, _ in model.module.named_modules() if name}
    layer_of = _name_nodes(proto.graph, layers)
    _refuse_unknown(proto.graph, layer_of)
    _strip(proto)
    return proto, layer_of


def _translate(model: CompressedModel) -> Any:
    program = export_model(model.module, model.example_inputs)
    _copy_before_views(program)
    try:
        with quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in model.inputs],
                output_names=[spec.name for spec in model.outputs],
                external_data=False,
                verbose=False,
            )
    except Exception as problem:
        operator, layer = _place(problem, program)
        raise UnsupportedModel(
            f"torch cannot export {operator} of layer {layer} to ONNX: {_innermost(problem)}",
            expected=f"operators that ONNX opset {OPSET} has",
            next_step=f"replace {operator} in {layer}, or choose another target",
        ) from problem
    assert exported is not None
    proto = exported.model_proto
    if proto.ByteSize() > _LARGEST_BYTES:
        raise UnsupportedModel(
            f"the model takes {proto.ByteSize()} bytes as ONNX, which one file cannot hold",
            expected=f"at most {_LARGEST_BYTES} bytes",
            next_step="prune the model, or choose another target",
        )
    return proto


def _copy_before_views(program: torch.export.ExportedProgram) -> None:
    """Put a row-major copy before every view, in place; ONNX has no strides and drops the copies.

    The exporter takes attention apart, and the parts give a result that lies in memory in another
    order than the whole gave it: a view that was possible then no longer is.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.target not in (torch.ops.aten.view.default, torch.ops.aten.reshape.default):
            continue
        with graph.inserting_before(node):
            copied = graph.call_function(
                torch.ops.aten.clone.default,
                (node.args[0],),
                {"memory_format": torch.contiguous_format},
            )
        copied.meta = {**node.meta, "val": node.args[0].meta["val"].contiguous()}
        node.replace_input_with(node.args[0], copied)
    program.graph_module.recompile()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's progress, and its warnings about packages that are not needed, silent."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _place(problem: BaseException, program: torch.export.ExportedProgram) -> tuple[str, str]:
    """Return the first operator of the program that the problem's messages name, and its layer."""
    text = ""
    cause: BaseException | None = problem
    while cause is not None:
        text += str(cause)
        cause = cause.__cause__
    # Exporting takes operators apart: linalg_svd is told of as aten._linalg_svd.
    parts = {name.strip("_") for name in re.findall(r"aten\.(\w+)", text)}
    for node in program.graph.nodes:
        if node.op == "call_function" and str(node.target).split(".")[1] in parts:
            stack = node.meta.get("nn_module_stack", {})
            layer = next((path for path, _ in reversed(stack.values())), "")
            return str(node.target), layer or "(the model)"
    return "an operator", "(unknown)"


def _innermost(problem: BaseException) -> str:
    """Return the first line of the innermost cause's message."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return first_line(problem).rstrip(".:")


def _name_nodes(graph: Any, layers: set[str]) -> dict[str, str]:
    """Name every node ``layer/operator`` (with a number where that is taken), in place."""
    layer_of: dict[str, str] = {}
    taken: dict[str, int] = {}
    for node in graph.node:
        layer = _layer(node, layers)
        stem = f"{layer}/{node.op_type}" if layer else node.op_type
        taken[stem] = taken.get(stem, 0) + 1
        node.name = stem if taken[stem] == 1 else f"{stem}_{taken[stem]}"
        if layer:
            layer_of[node.name] = layer
    return layer_of


def _layer(node: Any, layers: set[str]) -> str:
    """Return the module path of a node: that of its weight, else of the code that called it.

    A convolution that a batch norm was folded into comes from the batch norm, says the exporter.
    """
    for name in node.input:
        if name.endswith(".weight") and name.removesuffix(".weight") in layers:
            return str(name.removesuffix(".weight"))
    scopes = next((item.value for item in node.metadata_props if item.key == _SCOPES), "")
    paths = [path for path in re.findall(r"'([^']*)'", scopes) if path in layers]
    return paths[-1] if paths else ""


def _refuse_unknown(graph: Any, layer_of: dict[str, str]) -> None:
    """Raise ``UnsupportedModel`` for the first operator that TensorRT's parser does not read."""
    for node in graph.node:
        operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        nested = any(attribute.HasField("g") for attribute in node.attribute)
        if node.domain or node.op_type not in OPERATORS or nested:
            layer = layer_of.get(node.name, "(the model)")
            raise UnsupportedModel(
                f"layer {layer} becomes the operator {operator}, which TensorRT's parser does not "
                "read",
                expected="the operators in onnx-tensorrt's docs/operators.md, no control flow",
                next_step=f"replace it in {layer}, or choose another target",
            )


def _strip(proto: Any) -> None:
    """Remove what no runtime reads, the paths of source files among it, in place."""
    proto.ir_version = IR_VERSION
    proto.producer_name, proto.producer_version = "edgesdk", ""
    proto.graph.name = "model"
    proto.doc_string = proto.graph.doc_string = ""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    for item in (*proto.graph.node, *proto.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    version = next(item for item in proto.opset_import if not item.domain)
    del proto.opset_import[:]
    proto.opset_import.append(version)
