"""What a ``.tflite`` file holds: read off a file's graph, or predicted for a traced model.

The prediction follows what litert-torch 0.10 and ai-edge-quantizer 0.10 write (docs/concepts/
cost-model.md says for which operators that was compared with real files): batch norms and clamps
disappear into the operator before them, images are channels-last, padding that TFLite has no
word for becomes a PAD, and an operator that TFLite lacks becomes several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from edgesdk.cost.file_form import FileForm, FormOp, FormTensor
from edgesdk.cost.fusion import BIAS_BYTES, INTEGER_BYTES, VIEWS, WEIGHTED, fuse
from edgesdk.cost.padding import padded_elements
from edgesdk.cost.unrolled import UNROLLED, unrolled
from edgesdk.graph import Op, OpGraph, TensorInfo
from edgesdk.scheme import ACTIVATION_BYTES, CALIBRATED_SCHEMES, GROUP_SIZE, WEIGHT_BYTES, Scheme

_WIDTHS: Mapping[str, float] = {**INTEGER_BYTES, "float32": 4, "float16": 2, "int4": 0.5}

# One operator each; what is not here is one operator too, of a name that nothing depends on.
_OPERATORS: Mapping[str, str] = {
    "linear": "FULLY_CONNECTED", "adaptive_avg_pool1d": "MEAN", "adaptive_avg_pool2d": "MEAN",
    "avg_pool2d": "AVERAGE_POOL_2D",
    "max_pool2d": "MAX_POOL_2D", "mean": "MEAN", "sum": "SUM", "relu": "RELU", "relu6": "RELU6",
    "hardswish": "HARD_SWISH", "sigmoid": "LOGISTIC", "tanh": "TANH", "softmax": "SOFTMAX",
    "add": "ADD", "sub": "SUB", "mul": "MUL", "div": "DIV", "cat": "CONCATENATION",
    "permute": "TRANSPOSE", "transpose": "TRANSPOSE", "constant_pad_nd": "PAD", "pad": "PAD",
    "upsample_nearest2d": "RESIZE_NEAREST_NEIGHBOR", "upsample_bilinear2d": "RESIZE_BILINEAR",
    "matmul": "BATCH_MATMUL", "bmm": "BATCH_MATMUL", "gelu": "GELU",
}  # fmt: skip
# Operators that read a short list of integers (axes, sizes) as a constant: how many.
_ARGUMENT_ELEMENTS: Mapping[str, int] = {
    "MEAN": 2, "SUM": 2, "RESHAPE": 2, "TRANSPOSE": 4, "PAD": 8, "RESIZE_NEAREST_NEIGHBOR": 2,
    "RESIZE_BILINEAR": 2,
}  # fmt: skip
_SCALARS = frozenset({"add", "sub", "mul", "div", "rsub", "pow", "leaky_relu"})
_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})


def tflite_form(
    graph: OpGraph, scheme: Scheme, *, integer_io: bool,
    formats: Mapping[str, Scheme] = MappingProxyType({}),
) -> FileForm:  # fmt: skip
    """Return what the file of a graph holds; a graph read from a file is taken at its word.

    ``formats`` names the operators that have another scheme than the network.
    """
    if any("operator" in op.attributes for op in graph.ops):
        return _Reading(graph).form()
    return _Lowering(unrolled(graph), scheme, integer_io=integer_io, formats=formats).form()


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
            if operator in _ARGUMENT_ELEMENTS:
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
            elements = _ARGUMENT_ELEMENTS[operator]
            self.arguments[key] = self.found.add(
                FormTensor(elements=elements, element_bytes=4, rank=1, is_constant=True)
            )
        return self.arguments[key]


class _Lowering:
    """The converter's steps, one method a kind of operator."""

    def __init__(
        self, graph: OpGraph, scheme: Scheme, *, integer_io: bool, formats: Mapping[str, Scheme]
    ) -> None:
        self.graph = graph
        self.scheme: Scheme = scheme
        self.formats = formats
        self.integer_io = integer_io
        self.is_static = scheme in CALIBRATED_SCHEMES
        # Whatever is stored narrower, LiteRT's activations are float32 unless they are integers.
        self.activation_bytes = ACTIVATION_BYTES[scheme] if self.is_static else 4
        self.found = FileForm()
        self.index_of: dict[str, int] = {}
        self.constants: dict[object, int] = {}
        self.images: set[str] = set()
        self.kernels = {kernel.op.name: kernel for kernel in fuse(graph)}
        self.folded = {name for kernel in self.kernels.values() for name in kernel.folded}

    def form(self) -> FileForm:
        for name, tensor in self.graph.tensors.items():
            if tensor.role == "input":
                self.found.inputs.append(self.tensor(name, tensor))
                if len(tensor.shape) == 4:
                    self.images.add(name)
        if self.is_static and not self.integer_io:
            self.found.inputs = [self.boundary(i, "QUANTIZE") for i in self.found.inputs]
        for op in self.graph.ops:
            self.lower(op)
        outputs = [n for n, tensor in self.graph.tensors.items() if tensor.role == "output"]
        self.found.outputs = [self.index_of[name] for name in outputs]
        if self.is_static and not self.integer_io:
            self.found.outputs = [self.boundary(i, "DEQUANTIZE") for i in self.found.outputs]
        return self.found

    def lower(self, op: Op) -> None:
        if op.name in self.folded:
            return
        layer = op.layer
        if op.kind == "squeeze" and op.attributes.get(UNROLLED):  # a SLICE drops the axis itself
            self.index_of[op.outputs[0]] = self.index_of[op.inputs[0]]
        elif op.kind == "chunk":
            self.slices(op)
        elif op.kind in VIEWS:
            self.view(op)
        elif op.kind in WEIGHTED:
            self.weighted(op)
        elif op.kind == "layer_norm":
            self.layer_norm(op)
        elif op.kind == "scaled_dot_product_attention":
            self.attention(op)
        elif op.kind == "embedding":
            self.embedding(op)
        elif op.kind == "silu":
            source = self.index_of[op.inputs[0]]
            gate = self.emit("LOGISTIC", [source], self.elements(op), layer)
            self.result(op, "MUL", [source, gate])
        elif op.kind == "batch_norm":
            source = self.index_of[op.inputs[0]]
            channels = self.graph.tensors[op.parameters[0]].elements if op.parameters else 1
            scaled = self.emit(
                "MUL", [source, self.vector(channels, layer)], self.elements(op), layer
            )
            self.result(op, "ADD", [scaled, self.vector(channels, layer)])
        else:
            self.single(op)

    def single(self, op: Op) -> None:
        operator = _OPERATORS.get(op.kind, op.kind.upper())
        sources = [self.index_of[name] for name in op.inputs]
        drops_axes = op.kind == "mean" and not op.attributes.get("keepdim")
        if (drops_axes or op.kind == "adaptive_avg_pool1d") and op.inputs[0] in self.images:
            sources = [self.transposed(op.inputs[0], op.layer)]
        padded = padded_elements(op, self.graph)
        if padded:
            pad = "PAD" if op.kind == "avg_pool2d" else "PADV2"
            arguments = [self.argument("PAD", op, op.layer)]
            arguments += [self.scalar("lowest")] if pad == "PADV2" else []
            sources = [self.emit(pad, [*sources, *arguments], padded, op.layer)]
        sources += [self.parameter(name, op.layer) for name in op.parameters]
        if op.kind in _SCALARS and len(sources) == 1:
            sources.append(self.vector(1, op.layer))
        if operator in _ARGUMENT_ELEMENTS:
            sources.append(self.argument(operator, op, op.layer))
        self.result(op, operator, sources)

    def slices(self, op: Op) -> None:
        """Each part is a SLICE, with its beginning as a constant; the size is the same for all."""
        source, rank = self.index_of[op.inputs[0]], len(self.graph.tensors[op.outputs[0]].shape)
        shape = self.graph.tensors[op.outputs[0]].shape
        size = self.whole(("size", shape), rank, op.layer)
        for index, name in enumerate(op.outputs):
            begin = self.whole(("begin", shape, index), rank, op.layer)
            output = self.tensor(name, self.graph.tensors[name], op.layer)
            inputs = (source, begin, size)
            self.found.ops.append(FormOp(operator="SLICE", inputs=inputs, outputs=(output,)))
        if op.inputs[0] in self.images:
            self.images.update(op.outputs)

    def view(self, op: Op) -> None:
        """A view of the same order is a RESHAPE, behind a TRANSPOSE where it mixes an image's
        axes; a pooled image [N, C, 1, 1] is flattened by the pooling itself."""
        name, source = op.inputs[0], self.index_of[op.inputs[0]]
        shape = self.graph.tensors[name].shape
        if name in self.images and math.prod(shape[2:]) == 1:
            self.index_of[op.outputs[0]] = source
            return
        if name in self.images:
            source = self.transposed(name, op.layer)
        if len(self.graph.tensors[op.outputs[0]].shape) == 4 and name in self.images:
            self.images.add(op.outputs[0])
        self.result(op, "RESHAPE", [source, self.argument("RESHAPE", op, op.layer)])

    def weighted(self, op: Op) -> None:
        kernel, layer = self.kernels[op.name], op.layer
        source = self.index_of[op.inputs[0]]
        if op.kind == "conv1d" and op.inputs[0] not in self.images:
            shape = self.argument("RESHAPE", op, layer)
            elements = self.graph.tensors[op.inputs[0]].elements
            source = self.emit("RESHAPE", [source, shape], elements, layer)
            axes = self.scalar("channels last")
            source = self.emit("TRANSPOSE", [source, axes], elements, layer)
        padded = padded_elements(op, self.graph)
        if padded:
            source = self.emit("PAD", [source, self.argument("PAD", op, layer)], padded, layer)
        operator = "CONV_2D" if op.kind in _CONVOLUTIONS else "TRANSPOSE_CONV"
        if op.kind == "linear":
            operator = "FULLY_CONNECTED"
        elif operator == "CONV_2D" and op.attributes.get("groups") == self.channels(op.inputs[0]):
            operator = "DEPTHWISE_CONV_2D"
        scheme = self.formats.get(op.name, self.scheme)
        if scheme == "int4_dynamic" and self.graph.tensors[op.parameters[0]].shape[1] % GROUP_SIZE:
            scheme = "int8_dynamic"  # a step of an LSTM, which no format names
        weight = self.kernel_constant(op, scheme)
        leaves = self.is_static and scheme != self.scheme
        if leaves:
            source = self.widened(source, layer)
        bias = self.bias(op, scheme)
        if leaves:
            found = self.emit(operator, [source, weight, bias], self.elements(op), layer, width=4)
            self.result(op, "QUANTIZE", [found])
        else:
            self.result(op, operator, [source, weight, bias])
        if op.kind in ("conv1d", "conv2d"):
            self.images.update(kernel.outputs)

    def bias(self, op: Op, scheme: Scheme) -> int:
        """Add a layer's bias. Layers that share weights share it, but where it is an integer, whose
        scales hang on the layer's input."""
        key = ("bias", op.parameters)
        is_static = scheme in CALIBRATED_SCHEMES
        if key not in self.constants or is_static:
            channels = self.kernels[op.name].biases
            self.constants[key] = self.found.add(
                FormTensor(
                    elements=channels,
                    element_bytes=BIAS_BYTES[scheme] if is_static else 4,
                    rank=1,
                    scales=channels if is_static else 0,
                    is_constant=True,
                    layer=op.layer,
                )
            )
        return self.constants[key]

    def kernel_constant(self, op: Op, scheme: Scheme) -> int:
        """Add a layer's weight, and behind it the DEQUANTIZE of a weight that only is stored."""
        kernel, layer = self.kernels[op.name], op.layer
        rank = 2 if op.kind == "linear" else 4
        shared = ("weight", op.parameters[0], scheme)
        if shared in self.constants:
            return self.constants[shared]
        weight = self.found.add(
            FormTensor(
                elements=kernel.weights,
                element_bytes=WEIGHT_BYTES[scheme],
                rank=rank,
                scales=kernel.biases if scheme in ("int8", "w8a16", "int8_dynamic") else 0,
                is_constant=True,
                layer=layer,
            )
        )
        if scheme == "int4_dynamic":
            # The scales of the blocks are a constant of their own, in float16.
            self.found.add(
                FormTensor(
                    elements=kernel.weights // GROUP_SIZE,
                    element_bytes=2,
                    rank=2,
                    is_constant=True,
                    layer=layer,
                )
            )
        self.constants[shared] = weight
        if scheme != "fp16":
            return weight
        index = self.found.add(
            FormTensor(elements=kernel.weights, element_bytes=4, rank=rank, layer=layer)
        )
        self.found.ops.append(FormOp(operator="DEQUANTIZE", inputs=(weight,), outputs=(index,)))
        self.constants[shared] = index
        return index

    def embedding(self, op: Op) -> None:
        """A GATHER or EMBEDDING_LOOKUP of a table that is as narrow as a layer's weights, with a
        scale for each row where its type is int8."""
        table = self.graph.tensors[op.parameters[0]]
        narrow = self.scheme in ("int8_dynamic", "int4_dynamic")
        width = WEIGHT_BYTES["int8_dynamic" if narrow else self.scheme]
        scales = table.shape[0] if narrow else int(self.is_static)
        key = ("weight", op.parameters[0])
        if key not in self.constants:
            weight = FormTensor(
                elements=table.elements, element_bytes=width, rank=2, scales=scales,
                is_constant=True, layer=op.layer,
            )  # fmt: skip
            self.constants[key] = self.found.add(weight)
        index = self.constants[key]
        if self.scheme == "fp16":
            index = self.emit("DEQUANTIZE", [index], table.elements, op.layer)
        self.result(op, "EMBEDDING_LOOKUP", [self.index_of[op.inputs[0]], index])

    def widened(self, source: int, layer: str) -> int:
        """Add the DEQUANTIZE in front of a layer that leaves int8; return its result's number."""
        elements = self.found.tensors[source].elements
        return self.emit("DEQUANTIZE", [source], elements, layer, width=4)

    def layer_norm(self, op: Op) -> None:
        source, layer = self.index_of[op.inputs[0]], op.layer
        elements = self.elements(op)
        shape = self.graph.tensors[op.inputs[0]].shape
        rows = elements // max(shape[-1], 1)
        axes = self.argument("MEAN", op, layer)
        wide = self.argument("RESHAPE", op, layer)
        mean = self.emit("MEAN", [source, axes], rows, layer)
        column = self.emit("RESHAPE", [mean, wide], rows, layer)
        squares = self.emit("SQUARED_DIFFERENCE", [source, column], elements, layer)
        variance = self.emit("MEAN", [squares, axes], rows, layer)
        shifted = self.emit("ADD", [variance, self.scalar("epsilon")], rows, layer)
        inverse = self.emit("RSQRT", [shifted], rows, layer)
        product = self.emit("MUL", [inverse, mean], rows, layer)
        negative = self.emit("SUB", [self.scalar("zero"), product], rows, layer)
        column = self.emit("RESHAPE", [inverse, wide], rows, layer)
        scaled = self.emit("MUL", [source, column], elements, layer)
        column = self.emit("RESHAPE", [negative, wide], rows, layer)
        readers = [other.kind for other in self.graph.ops if op.outputs[0] in other.inputs]
        if len(op.parameters) < 2 or set(readers) == {"linear"}:  # folded into what reads it
            self.result(op, "ADD", [scaled, column])
            return
        moved = self.emit("ADD", [scaled, column], elements, layer)
        moved = self.emit("MUL", [moved, self.parameter(op.parameters[0], layer)], elements, layer)
        self.result(op, "ADD", [moved, self.parameter(op.parameters[1], layer)])

    def attention(self, op: Op) -> None:
        layer = op.layer
        query, key, value = (self.graph.tensors[name] for name in op.inputs[:3])
        scores = query.elements // query.shape[-1] * key.shape[-2]
        flat = self.argument("RESHAPE", op, layer)
        deep = self.scalar("four axes")
        rows = [
            self.emit("RESHAPE", [self.index_of[n], flat], self.graph.tensors[n].elements, layer)
            for n in op.inputs[:2]
        ]
        found = self.emit("BATCH_MATMUL", rows, scores, layer)
        found = self.emit("RESHAPE", [found, deep], scores, layer)
        found = self.emit("SOFTMAX", [found], scores, layer)
        found = self.emit("RESHAPE", [found, flat], scores, layer)
        values = self.index_of[op.inputs[2]]
        values = self.emit("RESHAPE", [values, flat], value.elements, layer)
        found = self.emit("BATCH_MATMUL", [found, values], self.elements(op), layer)
        self.result(op, "RESHAPE", [found, deep])

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
        inputs = [self.index_of[name], self.scalar("channels first")]
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

    def parameter(self, name: str, layer: str) -> int:
        if name not in self.constants:
            tensor = self.graph.tensors[name]
            self.constants[name] = self.vector(tensor.elements, layer, wide=False)
        return self.constants[name]

    def vector(self, elements: int, layer: str, *, wide: bool = True) -> int:
        """Add a constant of one dimension, of four bytes an element if ``wide``."""
        return self.found.add(
            FormTensor(
                elements=elements,
                element_bytes=4 if wide else self.activation_bytes,
                rank=1,
                scales=int(self.is_static),
                is_constant=True,
                layer=layer,
            )
        )

    def whole(self, key: object, elements: int, layer: str) -> int:
        """Return a constant of integers; equal ones are stored once."""
        if key not in self.constants:
            tensor = FormTensor(
                elements=elements, element_bytes=4, rank=1, is_constant=True, layer=layer
            )
            self.constants[key] = self.found.add(tensor)
        return self.constants[key]

    def scalar(self, meaning: str) -> int:
        """Return a small constant that all operators share."""
        if meaning not in self.constants:
            self.constants[meaning] = self.vector(1, "")
        return self.constants[meaning]

    def argument(self, operator: str, op: Op, layer: str) -> int:
        """Return the integers an operator reads; equal ones are stored once."""
        shape = self.graph.tensors[op.outputs[0]].shape
        key = (operator, shape if operator == "RESHAPE" or operator.startswith("RESIZE") else ())
        return self.whole(key, _ARGUMENT_ELEMENTS[operator], layer)

    def elements(self, op: Op) -> int:
        return self.graph.tensors[op.outputs[0]].elements

    def channels(self, name: str) -> int:
        shape = self.graph.tensors[name].shape
        return shape[1] if len(shape) > 1 else 1
