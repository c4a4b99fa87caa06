"""Name the layer and the operator that a converter's exception is about."""

from __future__ import annotations

import traceback

from torch.fx import Node

from edgesdk.errors import UnsupportedModel

# The child of the wrapper around every converted model (edgesdk_tflite.layout) that is the model.
_WRAPPED = "wrapped"


def conversion_error(problem: Exception) -> UnsupportedModel:
    """Return the error for an exception out of the converter, its first line as the cause.

    The operator and its layer are those of the graph node that was being lowered.
    """
    node = _node_at_fault(problem)
    layer = _layer_of(node) if node is not None else ""
    operator = str(node.target) if node is not None else ""
    where = f" operator {operator}" if operator else " the model"
    where += f" of layer {layer!r}" if layer else ""
    said = str(problem).strip().split("\n", 1)[0] or type(problem).__name__
    return UnsupportedModel(
        f"LiteRT cannot convert{where}: {said}",
        expected="operators that LiteRT has, on tensors of fixed shape",
        next_step="replace that operator, move it out of the model, or use another target",
        details={"layer": layer, "operator": operator},
    )


def _node_at_fault(problem: Exception) -> Node | None:
    """Return the graph node that the innermost frame of the converter was working on."""
    found = None
    for frame, _ in traceback.walk_tb(problem.__traceback__):
        for name in ("node", "n"):
            if isinstance(frame.f_locals.get(name), Node):
                found = frame.f_locals[name]
    return found


def _layer_of(node: Node) -> str:
    paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return paths[-1].removeprefix(_WRAPPED).removeprefix(".") if paths else ""
