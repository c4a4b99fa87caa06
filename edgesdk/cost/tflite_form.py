"""What a ``.tflite`` file holds: read off a file's graph, or predicted for a traced model.

The prediction follows what litert-torch 0.10 and ai-edge-quantizer 0.10 write (docs/concepts/
cost-model.md says for which operators that was compared with real files): batch norms and clamps
disappear into the operator before them, images are channels-last, padding that TFLite has no
word for becomes a PAD, and an operator that TFLite lacks becomes several.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

from edgesdk.cost.file_form import FileForm, FormOp
from edgesdk.cost.fusion import VIEWS, WEIGHTED
from edgesdk.cost.padding import padded_elements
from edgesdk.cost.tflite_constants import ARGUMENT_ELEMENTS
from edgesdk.cost.tflite_reading import form_of_file
from edgesdk.cost.tflite_writer import TfliteWriter
from edgesdk.cost.unrolled import UNROLLED, unrolled
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import GROUP_SIZE, Scheme

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
_SCALARS = frozenset({"add", "sub", "mul", "div", "rsub", "pow", "leaky_relu"})
_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})


def tflite_form(
    graph: OpGraph, scheme: Scheme, *, integer_io: bool,
    formats: Mapping[str, Scheme] = MappingProxyType({}),
) -> FileForm:  # fmt: skip
    """Return what the file of a graph holds; a graph read from a file is taken at its word, and one
    read from a float file as the quantizer will leave it.

    ``formats`` names the operators that have another scheme than the network.
    """
    if any("operator" in op.attributes for op in graph.ops):
        return form_of_file(graph, scheme, integer_io=integer_io)
    return _Lowering(unrolled(graph), scheme, integer_io=integer_io, formats=formats).form()


class _Lowering(TfliteWriter):
    """The converter's steps, one method a kind of operator."""

    @cached_property
    def reader_kinds(self) -> Mapping[str, set[str]]:
        """Of each tensor the kinds of operators that read it."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for op in self.graph.ops:
            for name in op.inputs:
                found[name].add(op.kind)
        return found

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
                "MUL", [source, self.constants.vector(channels, layer)], self.elements(op), layer
            )
            self.result(op, "ADD", [scaled, self.constants.vector(channels, layer)])
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
            arguments = [self.constants.argument("PAD", op)]
            arguments += [self.constants.scalar("lowest")] if pad == "PADV2" else []
            sources = [self.emit(pad, [*sources, *arguments], padded, op.layer)]
        sources += [self.constants.parameter(name, op.layer) for name in op.parameters]
        if op.kind in _SCALARS and len(sources) == 1:
            sources.append(self.constants.vector(1, op.layer))
        if operator in ARGUMENT_ELEMENTS:
            sources.append(self.constants.argument(operator, op))
        self.result(op, operator, sources)

    def slices(self, op: Op) -> None:
        """Each part is a SLICE, with its beginning as a constant; the size is the same for all."""
        source, rank = self.index_of[op.inputs[0]], len(self.graph.tensors[op.outputs[0]].shape)
        shape = self.graph.tensors[op.outputs[0]].shape
        size = self.constants.whole(("size", shape), rank, op.layer)
        for index, name in enumerate(op.outputs):
            begin = self.constants.whole(("begin", shape, index), rank, op.layer)
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
        self.result(op, "RESHAPE", [source, self.constants.argument("RESHAPE", op)])

    def weighted(self, op: Op) -> None:
        kernel, layer = self.kernels[op.name], op.layer
        source = self.index_of[op.inputs[0]]
        if op.kind == "conv1d" and op.inputs[0] not in self.images:
            shape = self.constants.argument("RESHAPE", op)
            elements = self.graph.tensors[op.inputs[0]].elements
            source = self.emit("RESHAPE", [source, shape], elements, layer)
            axes = self.constants.scalar("channels last")
            source = self.emit("TRANSPOSE", [source, axes], elements, layer)
        padded = padded_elements(op, self.graph)
        if padded:
            source = self.emit("PAD", [source, self.constants.argument("PAD", op)], padded, layer)
        operator = "CONV_2D" if op.kind in _CONVOLUTIONS else "TRANSPOSE_CONV"
        if op.kind == "linear":
            operator = "FULLY_CONNECTED"
        elif operator == "CONV_2D" and op.attributes.get("groups") == self.channels(op.inputs[0]):
            operator = "DEPTHWISE_CONV_2D"
        scheme = self.formats.get(op.name, self.scheme)
        if scheme == "int4_dynamic" and self.graph.tensors[op.parameters[0]].shape[1] % GROUP_SIZE:
            scheme = "int8_dynamic"  # a step of an LSTM, which no format names
        weight = self.constants.weight(op, kernel, scheme)
        leaves = self.is_static and scheme != self.scheme
        if leaves:
            source = self.widened(source, layer)
        bias = self.constants.bias(op, kernel.biases, scheme)
        if leaves:
            found = self.emit(operator, [source, weight, bias], self.elements(op), layer, width=4)
            self.result(op, "QUANTIZE", [found])
        else:
            self.result(op, operator, [source, weight, bias])
        if op.kind in ("conv1d", "conv2d"):
            self.images.update(kernel.outputs)

    def embedding(self, op: Op) -> None:
        """A GATHER or EMBEDDING_LOOKUP of a table, restored where it only is stored narrower."""
        table = self.constants.table(op)
        if self.scheme == "fp16":
            elements = self.graph.tensors[op.parameters[0]].elements
            table = self.emit("DEQUANTIZE", [table], elements, op.layer)
        self.result(op, "EMBEDDING_LOOKUP", [self.index_of[op.inputs[0]], table])

    def widened(self, source: int, layer: str) -> int:
        """Add the DEQUANTIZE in front of a layer that leaves int8; return its result's number."""
        elements = self.found.tensors[source].elements
        return self.emit("DEQUANTIZE", [source], elements, layer, width=4)

    def layer_norm(self, op: Op) -> None:
        source, layer = self.index_of[op.inputs[0]], op.layer
        elements = self.elements(op)
        shape = self.graph.tensors[op.inputs[0]].shape
        rows = elements // max(shape[-1], 1)
        axes = self.constants.argument("MEAN", op)
        wide = self.constants.argument("RESHAPE", op)
        mean = self.emit("MEAN", [source, axes], rows, layer)
        column = self.emit("RESHAPE", [mean, wide], rows, layer)
        squares = self.emit("SQUARED_DIFFERENCE", [source, column], elements, layer)
        variance = self.emit("MEAN", [squares, axes], rows, layer)
        shifted = self.emit("ADD", [variance, self.constants.scalar("epsilon")], rows, layer)
        inverse = self.emit("RSQRT", [shifted], rows, layer)
        product = self.emit("MUL", [inverse, mean], rows, layer)
        negative = self.emit("SUB", [self.constants.scalar("zero"), product], rows, layer)
        column = self.emit("RESHAPE", [inverse, wide], rows, layer)
        scaled = self.emit("MUL", [source, column], elements, layer)
        column = self.emit("RESHAPE", [negative, wide], rows, layer)
        readers = self.reader_kinds[op.outputs[0]]
        if len(op.parameters) < 2 or readers == {"linear"}:  # folded into what reads it
            self.result(op, "ADD", [scaled, column])
            return
        moved = self.emit("ADD", [scaled, column], elements, layer)
        moved = self.emit(
            "MUL", [moved, self.constants.parameter(op.parameters[0], layer)], elements, layer
        )
        self.result(op, "ADD", [moved, self.constants.parameter(op.parameters[1], layer)])

    def attention(self, op: Op) -> None:
        layer = op.layer
        query, key, value = (self.graph.tensors[name] for name in op.inputs[:3])
        scores = query.elements // query.shape[-1] * key.shape[-2]
        flat = self.constants.argument("RESHAPE", op)
        deep = self.constants.scalar("four axes")
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
