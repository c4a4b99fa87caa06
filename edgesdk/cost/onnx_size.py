"""Bytes of an ``.onnx`` file before it is written, from its nodes, names and constants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from edgesdk.cost import onnx_bytes as onnx
from edgesdk.cost.fusion import INTEGER_BYTES, VIEWS, WEIGHTED, fuse
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import Scheme

# Nodes of an operator, where they are not one of its name without underscores.
_NODES: Mapping[str, tuple[str, ...]] = {
    "adaptive_avg_pool1d": ("Unsqueeze", "ReduceMean", "Squeeze"),
    "adaptive_avg_pool2d": ("ReduceMean",), "amax": ("ReduceMax",), "avg_pool2d": ("AveragePool",),
    "bmm": ("MatMul",), "cat": ("Concat",), "chunk": ("Split",), "clamp": ("Clip",),
    "constant_pad_nd": ("Pad",), "embedding": ("Gather",),
    "gelu": ("Div", "Erf", "Add", "Mul", "Mul"), "hardswish": ("HardSwish",),
    "hardtanh": ("Clip",), "layer_norm": ("LayerNormalization",), "matmul": ("MatMul",),
    "max_pool2d": ("MaxPool",), "mean": ("ReduceMean",), "permute": ("Transpose",),
    "relu6": ("Clip",), "silu": ("Sigmoid", "Mul"), "sum": ("ReduceSum",),
    "upsample_bilinear2d": ("Resize",), "upsample_nearest2d": ("Resize",),
    "scaled_dot_product_attention": (
        "Reshape", "Transpose", "Reshape", "Mul", "Mul", "MatMul", "Softmax", "MatMul",
    ),
}  # fmt: skip
# What a node reads beside tensors: integers, or numbers. Equal ones are stored once.
_INTEGERS = frozenset(
    {"ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "Squeeze", "Unsqueeze", "Pad"}
)
_NUMBERS: Mapping[str, int] = {"Clip": 2}
_POOLING = frozenset({"AveragePool"})
_RESULTS: Mapping[str, str] = {
    "adaptive_avg_pool2d": "mean", "flatten": "view", "reshape": "view",
}  # fmt: skip
"""What the exporter calls results, where it is not the operator's kind."""
_TENSOR_NAME = "val_00"
_FILE_BYTES = 2 + len("edgesdk") + 2 + 2 + 2 + len("model") + 2 + 4 + 6
"""Version, producer, the graph's own tag, length and name, and the set of operators."""


def onnx_bytes(
    graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme] = MappingProxyType({})
) -> float:
    """Return the bytes of the ``.onnx`` of a graph; ``formats`` names the operators that have
    another scheme than the network."""
    return _Lowering(graph, scheme, formats).size_bytes()


class _Lowering:
    """The nodes of the file, one after the other, under the names that the exporter gives."""

    def __init__(self, graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme]) -> None:
        self.graph, self.scheme, self.formats = graph, scheme, formats
        self.kernels = {kernel.op.name: kernel for kernel in fuse(graph)}
        norms = {op.name for op in graph.ops if op.kind == "batch_norm"}
        self.norms = {
            name: kernel
            for kernel in self.kernels.values()
            for name in kernel.folded
            if name in norms
        }
        self.element_bytes = 2 if scheme == "fp16" else 4
        self.size = _FILE_BYTES
        self.name_of: dict[str, str] = {}
        self.times: dict[str, int] = {}
        self.stored: set[str] = set()
        self.quantized: set[str] = set()
        self.convolved: set[str] = set()
        self.readers = Counter(name for op in graph.ops for name in op.inputs)

    def size_bytes(self) -> float:
        for name, tensor in self.graph.tensors.items():
            if tensor.role not in ("input", "output"):
                continue
            shown = tensor.role
            self.name_of[name] = shown
            self.size += onnx.end(shown, tensor.shape)
            if self.scheme == "fp16" and tensor.dtype == "float32":
                half = f"{shown}.half"
                to = onnx.number("to")
                source, result = (shown, half) if shown == "input" else (half, shown)
                self.size += onnx.node("Cast", f"{shown}/Cast", [source], [result], to)
                self.name_of[name] = half
        for op in self.graph.ops:
            self._lower(op)
        return float(self.size)

    def _lower(self, op: Op) -> None:
        if op.name in self.norms:
            self.name_of[op.outputs[0]] = self._read(op.inputs[0])
            self.convolved.add(op.outputs[0])
        elif op.kind in WEIGHTED:
            self._weighted(op)
        elif op.kind == "batch_norm":
            self._nodes(op, ("BatchNormalization",))
        elif op.kind in VIEWS:
            self._nodes(op, ("Reshape",))
        else:
            default = "".join(part.capitalize() for part in op.kind.split("_"))
            self._nodes(op, _NODES.get(op.kind, (default,)))

    def _weighted(self, op: Op) -> None:
        kernel = self.kernels[op.name]
        weight = self.graph.tensors[op.parameters[0]]
        rank = len(self.graph.tensors[op.outputs[0]].shape)
        has_norm = any(name in self.norms for name in kernel.folded)
        is_product = op.kind == "linear" and rank != len(weight.shape)
        kind = "Conv" if op.kind.startswith("conv") else "Gemm"
        kind = "ConvTranspose" if "transpose" in op.kind else kind
        kind = "MatMul" if is_product else kind
        name = self._named(op.layer, kind)
        source, own = self._read(op.inputs[0]), f"{op.layer}.weight" if op.layer else "weight"
        own = _TENSOR_NAME if is_product else own
        bias = f"{own}_bias" if has_norm else own.replace("weight", "bias")
        bias = f"{op.layer}.bias" if is_product else bias
        self._store(bias, (kernel.channels,))
        if self.formats.get(op.name, self.scheme) == "int8":
            source = self._dequantized(source, f"{name}/input_0")
            own = self._narrow(own, name, weight.shape, kernel.channels)
        else:
            self._store(own, weight.shape)
        result = self._result(op, "getitem" if has_norm else op.kind)
        if is_product:
            self.size += onnx.node(kind, name, (source, own), (_TENSOR_NAME,), 0)
            added = self._named(op.layer, "Add")
            self.size += onnx.node("Add", added, (_TENSOR_NAME, bias), (result,), 0)
            return
        extra = _window(len(weight.shape) - 2) if kind != "Gemm" else _GEMM
        self.size += onnx.node(kind, name, (source, own, bias), (result,), extra)
        if kind != "Gemm":
            self.convolved.add(op.outputs[0])

    def _narrow(self, own: str, name: str, shape: Sequence[int], channels: int) -> str:
        """Add an int8 weight, its scales and zero points, and the node that decodes it."""
        stored = f"{own}/int8"
        if stored not in self.stored or own == _TENSOR_NAME:
            self.stored.add(stored)
            self.size += onnx.initializer(stored, shape, math.prod(shape), located=False)
            scale, zero = f"{stored}/scale", f"{stored}/zero_point"
            self.size += onnx.initializer(scale, (channels,), 4 * channels, located=False)
            self.size += onnx.initializer(zero, (channels,), channels, located=False)
        output = f"{name}/weight"
        self._decode(stored, stored, output, onnx.number("axis"))
        return output

    def _dequantized(self, tensor: str, output: str) -> str:
        """Add what makes a tensor int8, once, and what decodes it for one reader."""
        if tensor not in self.quantized:
            self.quantized.add(tensor)
            names = (tensor, f"{tensor}/scale", f"{tensor}/zero_point")
            self.size += onnx.initializer(names[1], (), 4, located=False)
            self.size += onnx.initializer(names[2], (), 1, located=False)
            name = f"{tensor}/QuantizeLinear"
            self.size += onnx.node("QuantizeLinear", name, names, (f"{tensor}/int8",), 0)
        self._decode(f"{tensor}/int8", tensor, output, 0)
        return output

    def _decode(self, tensor: str, parameters: str, output: str, extra: int) -> None:
        names = (tensor, f"{parameters}/scale", f"{parameters}/zero_point")
        name = f"{output}/DequantizeLinear"
        self.size += onnx.node("DequantizeLinear", name, names, (output,), extra)

    def _nodes(self, op: Op, kinds: Sequence[str]) -> None:
        sources = [self._read(name) for name in op.inputs]
        sources += [self._parameter(op, index) for index in range(len(op.parameters))]
        sources += ["val_0"] * (op.kind in ("add", "sub", "mul", "div") and len(sources) == 1)
        rank = len(self.graph.tensors[op.inputs[0]].shape) if op.inputs else 1
        if self.scheme == "int8":
            self._quantize(op, kinds, sources)
        for kind in kinds:
            name = self._named("" if op.kind == "chunk" else op.layer, kind)
            last = kind == kinds[-1]
            results = [self._result(op, op.kind)] if last else [_TENSOR_NAME]
            results += [_TENSOR_NAME] * (len(op.outputs) - 1)
            extra = _attributes(kind, rank)
            inputs = [*sources, *self._arguments(kind, op)]
            self.size += onnx.node(kind, name, inputs, results, extra)
            sources = [_TENSOR_NAME, *sources[1:]]

    def _quantize(self, op: Op, kinds: Sequence[str], sources: list[str]) -> None:
        if kinds[0] in _POOLING:
            sources[0] = self._dequantized(sources[0], f"{op.layer}/{kinds[0]}/input_0")
        fused = [
            index
            for index, name in enumerate(op.inputs)
            if name in self.convolved and self.readers[name] == 1
        ]
        if op.kind == "add" and fused and len(op.inputs) > 1:
            other = 1 - fused[-1]
            sources[other] = self._dequantized(sources[other], f"{op.layer}/Add/input_{other}")

    def _arguments(self, kind: str, op: Op) -> list[str]:
        """Return the names of the constants a node reads, each stored where it is new."""
        shape = self.graph.tensors[op.outputs[0]].shape
        if kind in _INTEGERS:
            count = len(shape) if kind == "Reshape" else 2
            key = f"{kind} {shape if kind == 'Reshape' else count}"
            self._constant(key, (count,), 8 * count)
            return [_TENSOR_NAME]
        if kind == "Resize":
            self._constant(f"{kind} {shape}", (4,), 16)
            return ["", _TENSOR_NAME]
        count = _NUMBERS.get(kind, 0)
        for index in range(count):
            self._constant(f"{kind} {index}", (), self.element_bytes)
        if op.kind in ("gelu", "scaled_dot_product_attention") and kind in ("Add", "Div", "Mul"):
            self._constant(f"{op.kind} {kind}", (), self.element_bytes)
            count = 1
        return [_TENSOR_NAME] * count

    def _constant(self, key: str, shape: Sequence[int], size: int) -> None:
        if key not in self.stored:
            self.stored.add(key)
            self.size += onnx.initializer(_TENSOR_NAME, shape, size, located=False)

    def _parameter(self, op: Op, index: int) -> str:
        name = f"{op.layer}.{('weight', 'bias')[index]}" if index < 2 else _TENSOR_NAME
        tensor = self.graph.tensors[op.parameters[index]]
        self._store(name, tensor.shape, INTEGER_BYTES.get(tensor.dtype, self.element_bytes))
        return name

    def _store(self, name: str, shape: Sequence[int], width: int = 0) -> None:
        if name in self.stored and name != _TENSOR_NAME:
            return
        self.stored.add(name)
        size = math.prod(shape, start=width or self.element_bytes)
        located = self.scheme == "fp32" and not name.endswith("_bias")
        self.size += onnx.initializer(name, shape, size, located=located)

    def _named(self, layer: str, kind: str) -> str:
        name = f"{layer}/{kind}" if layer else kind
        seen = self.times.get(name, 0)
        self.times[name] = seen + 1
        return f"{name}_{seen + 1}" if seen else name

    def _result(self, op: Op, kind: str) -> str:
        """Return the name of an operator's result, which is numbered from the second on."""
        name = op.outputs[0]
        kernel = self.kernels.get(op.name)
        ends_in_norm = kernel is not None and kernel.folded and kernel.folded[-1] in self.norms
        ending = kernel.outputs[0] if kernel is not None and ends_in_norm else name
        if ending in self.name_of:  # an output has its own name
            self.name_of[name] = self.name_of[ending]
            return self.name_of[ending]
        plain = _RESULTS.get(kind, kind)
        seen = self.times.get(f"={plain}", 0)
        self.times[f"={plain}"] = seen + (3 if plain == "getitem" else 1)
        found = f"{plain}_{seen}" if seen else plain
        self.name_of[name] = found
        return found

    def _read(self, name: str) -> str:
        return self.name_of.get(name, name)


_GEMM = onnx.real("alpha") + onnx.real("beta") + onnx.number("transA") + onnx.number("transB")


@cache
def _window(spatial: int) -> int:
    """Return the attributes of a convolution over that many dimensions."""
    names = ("strides", "dilations", "kernel_shape")
    size = sum(onnx.numbers(name, spatial) for name in names) + onnx.numbers("pads", 2 * spatial)
    return size + onnx.number("group") + onnx.text("auto_pad", len("NOTSET"))


def _resize() -> int:
    texts = (("mode", 7), ("nearest_mode", 5), ("coordinate_transformation_mode", 10))
    size = sum(onnx.text(name, length) for name, length in texts)
    size += onnx.number("antialias") + onnx.number("exclude_outside")
    size += onnx.real("cubic_coeff_a") + onnx.real("extrapolation_value")
    return size + onnx.text("keep_aspect_ratio_policy", len("stretch"))


_REDUCES = onnx.number("noop_with_empty_axes") + onnx.number("keepdims")
_LAST_AXIS = onnx.numbers("axis", 5)  # -1 takes ten bytes
_ATTRIBUTES: Mapping[str, int] = {
    "Concat": onnx.number("axis"), "Gather": onnx.number("axis"), "LeakyRelu": onnx.real("alpha"),
    "LayerNormalization": onnx.number("stash_type") + onnx.real("epsilon") + _LAST_AXIS,
    "ReduceMax": onnx.number("keepdims"), "ReduceMean": _REDUCES, "ReduceSum": _REDUCES,
    "Reshape": onnx.number("allowzero"), "Resize": _resize(), "Softmax": _LAST_AXIS,
    "Split": onnx.number("axis") + onnx.number("num_outputs"),
}  # fmt: skip


def _attributes(kind: str, rank: int) -> int:
    if kind in ("MaxPool", "AveragePool"):
        also = "storage_order" if kind == "MaxPool" else "count_include_pad"
        own = onnx.number(also) + onnx.number("ceil_mode")
        return _window(rank - 2) - onnx.number("group") + own
    return onnx.numbers("perm", rank) if kind == "Transpose" else _ATTRIBUTES.get(kind, 0)
