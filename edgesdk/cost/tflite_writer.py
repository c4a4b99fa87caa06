"""A ``.tflite``'s form while it is written: operators, their results, the file's ends."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.cost.file_form import FileForm, FormOp, FormTensor
from edgesdk.cost.fusion import INTEGER_BYTES, fuse
from edgesdk.cost.tflite_constants import TfliteConstants
from edgesdk.graph import Op, OpGraph, TensorInfo
from edgesdk.scheme import Scheme


class TfliteWriter:
    """Tensors by number, those of the graph by name too; ``images`` are channels-last."""

    def __init__(
        self, graph: OpGraph, scheme: Scheme, *, integer_io: bool, formats: Mapping[str, Scheme]
    ) -> None:
        self.graph = graph
        self.scheme: Scheme = scheme
        self.formats = formats
        self.integer_io = integer_io
        self.found = FileForm()
        self.index_of: dict[str, int] = {}
        self.constants = TfliteConstants(graph, scheme, self.found)
        self.is_static = self.constants.is_static
        self.activation_bytes = self.constants.activation_bytes
        self.images: set[str] = set()
        self.kernels = {kernel.op.name: kernel for kernel in fuse(graph)}
        self.folded = {name for kernel in self.kernels.values() for name in kernel.folded}

    def emit(
        self, operator: str, inputs: list[int], elements: int, layer: str, *, width: float = 0
    ) -> int:
        """Add an operator with one result of that many elements; return the result's number.

        ``width``: the bytes of an element, where they are not the network's.
        """
        tensor = FormTensor(
            elements=elements, element_bytes=width or self.activation_bytes, rank=4,
            scales=int(self.is_static and not width), layer=layer,
        )  # fmt: skip
        index = self.found.add(tensor)
        self.found.ops.append(FormOp(operator=operator, inputs=tuple(inputs), outputs=(index,)))
        return index

    def result(self, op: Op, operator: str, inputs: list[int]) -> None:
        """Add the operator that writes an op's results, folded ones under every name."""
        kernel = self.kernels.get(op.name)
        names = kernel.outputs if kernel is not None else op.outputs
        outputs = [self.tensor(name, self.graph.tensors[name], op.layer) for name in names]
        self.found.ops.append(
            FormOp(operator=operator, inputs=tuple(inputs), outputs=tuple(outputs))
        )
        if self.images & set(op.inputs) and operator not in ("RESHAPE", "TRANSPOSE"):
            self.images.update(n for n in names if len(self.graph.tensors[n].shape) == 4)

    def tensor(self, name: str, tensor: TensorInfo, layer: str = "") -> int:
        """Add a tensor of the graph, under its name; return its number."""
        self.index_of[name] = self.found.add(
            FormTensor(
                elements=tensor.elements,
                element_bytes=INTEGER_BYTES.get(tensor.dtype, self.activation_bytes),
                rank=len(tensor.shape),
                scales=int(self.is_static and tensor.dtype not in INTEGER_BYTES),
                layer=layer,
            )
        )
        return self.index_of[name]

    def transposed(self, name: str, layer: str) -> int:
        """Add the TRANSPOSE of an image to channels first; return its result's number."""
        inputs = [self.index_of[name], self.constants.scalar("channels first")]
        return self.emit("TRANSPOSE", inputs, self.graph.tensors[name].elements, layer)

    def boundary(self, inner: int, operator: str) -> int:
        """Return the float32 tensor outside of an integer input or output."""
        tensor = self.found.tensors[inner]
        outer = self.found.add(
            FormTensor(elements=tensor.elements, element_bytes=4, rank=tensor.rank)
        )
        pair = (outer, inner) if operator == "QUANTIZE" else (inner, outer)
        op = FormOp(operator=operator, inputs=pair[:1], outputs=pair[1:])
        self.found.ops.append(op)
        return outer

    def elements(self, op: Op) -> int:
        """Return the elements of an operator's first result."""
        return self.graph.tensors[op.outputs[0]].elements

    def channels(self, name: str) -> int:
        """Return the channels of an operator's input."""
        shape = self.graph.tensors[name].shape
        return shape[1] if len(shape) > 1 else 1
