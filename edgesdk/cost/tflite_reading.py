"""What a ``.tflite`` that exists holds: the graph that was read from it, taken at its word."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.cost.file_form import FileForm, FormOp, FormTensor
from edgesdk.cost.fusion import INTEGER_BYTES
from edgesdk.cost.tflite_constants import ARGUMENT_ELEMENTS
from edgesdk.graph import OpGraph

_WIDTHS: Mapping[str, float] = {**INTEGER_BYTES, "float32": 4, "float16": 2, "int4": 0.5}


def form_of_file(graph: OpGraph) -> FileForm:
    """Return what the file that a graph was read from holds."""
    return _Reading(graph).form()


class _Reading:
    """A file's own operators, and the arguments that a graph leaves out of its parameters."""

    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self.found = FileForm()
        self.index_of: dict[str, int] = {}
        self.arguments: dict[tuple[str, int], int] = {}

    def form(self) -> FileForm:
        for op in self.graph.ops:
            operator = str(op.attributes.get("operator", op.kind.upper()))
            scales = op.attributes.get("scales", 0)
            inputs = [self.index(name) for name in op.inputs]
            for name in op.parameters:
                inputs.append(self.index(name, scales if isinstance(scales, int) else 0))
            if operator in ARGUMENT_ELEMENTS:
                inputs.append(self.argument(operator))
            outputs = tuple(self.index(name) for name in op.outputs)
            self.found.ops.append(FormOp(operator=operator, inputs=tuple(inputs), outputs=outputs))
        roles = {name: tensor.role for name, tensor in self.graph.tensors.items()}
        self.found.inputs = [self.index(name) for name, role in roles.items() if role == "input"]
        self.found.outputs = [self.index(name) for name, role in roles.items() if role == "output"]
        return self.found

    def index(self, name: str, scales: int = 1) -> int:
        if name not in self.index_of:
            tensor = self.graph.tensors[name]
            quantized = _WIDTHS.get(tensor.dtype, 4) <= 1 or tensor.dtype == "int16"
            self.index_of[name] = self.found.add(
                FormTensor(
                    elements=tensor.elements,
                    element_bytes=_WIDTHS.get(tensor.dtype, 4),
                    rank=len(tensor.shape),
                    scales=scales if quantized or tensor.role == "parameter" else 0,
                    is_constant=tensor.role == "parameter",
                )
            )
        return self.index_of[name]

    def argument(self, operator: str) -> int:
        """Return the constant that operators of a kind share, axes for instance."""
        key = operator, len(self.found.ops) if operator == "RESHAPE" else 0
        if key not in self.arguments:
            elements = ARGUMENT_ELEMENTS[operator]
            self.arguments[key] = self.found.add(
                FormTensor(elements=elements, element_bytes=4, rank=1, is_constant=True)
            )
        return self.arguments[key]
