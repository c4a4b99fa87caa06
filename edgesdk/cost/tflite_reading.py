"""What a ``.tflite`` holds: one that exists, taken at its word, or what quantizing makes of it."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.cost.file_form import FileForm, FormOp, FormTensor
from edgesdk.cost.fusion import INTEGER_BYTES, WEIGHTED
from edgesdk.cost.tflite_constants import ARGUMENT_ELEMENTS
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import ACTIVATION_BYTES, CALIBRATED_SCHEMES, WEIGHT_BYTES, Scheme

_WIDTHS: Mapping[str, float] = {**INTEGER_BYTES, "float32": 4, "float16": 2, "int4": 0.5}
_BIAS_BYTES: Mapping[Scheme, float] = {"int8": 4, "w8a16": 8}


def form_of_file(graph: OpGraph, scheme: Scheme, *, integer_io: bool) -> FileForm:
    """Return what the file that a graph was read from holds in a scheme.

    A file whose kernels are float32 is quantized first; any other is what it is already.
    """
    kernels = [op.parameters[0] for op in graph.ops if op.kind in WEIGHTED and op.parameters]
    is_float = all(graph.tensors[name].dtype == "float32" for name in kernels)
    if not is_float or scheme == "fp32":
        return _Reading(graph).form()
    return _Quantizing(graph, scheme, integer_io=integer_io).form()


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
            inputs = [self.index(name) for name in op.inputs]
            inputs += [self.parameter(op, name) for name in op.parameters]
            if operator in ARGUMENT_ELEMENTS:
                inputs.append(self.argument(operator))
            outputs = tuple(self.index(name) for name in op.outputs)
            self.found.ops.append(FormOp(operator=operator, inputs=tuple(inputs), outputs=outputs))
        roles = {name: tensor.role for name, tensor in self.graph.tensors.items()}
        self.found.inputs = [self.index(name) for name, role in roles.items() if role == "input"]
        self.found.outputs = [self.index(name) for name, role in roles.items() if role == "output"]
        return self.found

    def parameter(self, op: Op, name: str) -> int:
        scales = op.attributes.get("scales", 0)
        return self.index(name, scales if isinstance(scales, int) else 0)

    def index(self, name: str, scales: int = 1) -> int:
        if name not in self.index_of:
            dtype = self.graph.tensors[name].dtype
            constant = self.graph.tensors[name].role == "parameter"
            quantized = _WIDTHS.get(dtype, 4) <= 1 or dtype == "int16"
            self.add(name, _WIDTHS.get(dtype, 4), scales if quantized or constant else 0)
        return self.index_of[name]

    def add(self, name: str, element_bytes: float, scales: int) -> None:
        tensor = self.graph.tensors[name]
        self.index_of[name] = self.found.add(
            FormTensor(
                elements=tensor.elements,
                element_bytes=element_bytes,
                rank=len(tensor.shape),
                scales=scales,
                is_constant=tensor.role == "parameter",
            )
        )

    def argument(self, operator: str) -> int:
        """Return the constant that operators of a kind share, axes for instance."""
        key = operator, len(self.found.ops) if operator == "RESHAPE" else 0
        if key not in self.arguments:
            elements = ARGUMENT_ELEMENTS[operator]
            self.arguments[key] = self.found.add(
                FormTensor(elements=elements, element_bytes=4, rank=1, is_constant=True)
            )
        return self.arguments[key]


class _Quantizing(_Reading):
    """A float file's operators as the quantizer leaves them in a scheme."""

    def __init__(self, graph: OpGraph, scheme: Scheme, *, integer_io: bool) -> None:
        super().__init__(graph)
        self.scheme = scheme
        self.is_static = scheme in CALIBRATED_SCHEMES
        self.integer_io = integer_io

    def form(self) -> FileForm:
        super().form()
        if self.is_static and not self.integer_io:
            self.found.inputs = [self.restated(i, "QUANTIZE") for i in self.found.inputs]
            self.found.outputs = [self.restated(i, "DEQUANTIZE") for i in self.found.outputs]
        return self.found

    def restated(self, index: int, operator: str) -> int:
        """Add a float tensor at the boundary, which an operator makes of the file's own or back."""
        inner = self.found.tensors[index]
        outer = self.found.add(
            FormTensor(elements=inner.elements, element_bytes=4, rank=inner.rank)
        )
        ends = (outer, index) if operator == "QUANTIZE" else (index, outer)
        converts = FormOp(operator=operator, inputs=ends[:1], outputs=ends[1:])
        if operator == "QUANTIZE":
            self.found.ops.insert(0, converts)
        else:
            self.found.ops.append(converts)
        return outer

    def parameter(self, op: Op, name: str) -> int:
        if name in self.index_of:
            return self.index_of[name]
        tensor = self.graph.tensors[name]
        is_kernel = op.kind in WEIGHTED and name == op.parameters[0]
        if tensor.dtype != "float32" or not (is_kernel or self.is_static):
            return self.index(name, 0)
        channels = self.graph.tensors[op.parameters[0]].shape[0] if op.kind in WEIGHTED else 1
        if is_kernel and self.scheme == "fp16":
            self.add(name, WEIGHT_BYTES["fp16"], 0)
            return self.restored(name)
        if is_kernel:
            self.add(name, WEIGHT_BYTES[self.scheme], channels)
        elif op.kind in WEIGHTED:
            self.add(name, _BIAS_BYTES[self.scheme], channels)
        else:
            self.add(name, ACTIVATION_BYTES[self.scheme], 1)
        return self.index_of[name]

    def restored(self, name: str) -> int:
        """Add the DEQUANTIZE that gives a kernel back as float32."""
        stored, tensor = self.index_of[name], self.graph.tensors[name]
        self.index_of[name] = wide = self.found.add(
            FormTensor(elements=tensor.elements, element_bytes=4, rank=len(tensor.shape))
        )
        self.found.ops.append(FormOp(operator="DEQUANTIZE", inputs=(stored,), outputs=(wide,)))
        return wide

    def index(self, name: str, scales: int = 1) -> int:
        is_real = self.graph.tensors[name].dtype == "float32"
        if name in self.index_of or not (self.is_static and is_real):
            return super().index(name, scales)
        self.add(name, ACTIVATION_BYTES[self.scheme], 1)
        return self.index_of[name]
