"""Bytes of an ``.mlpackage`` before it is written, from its operations, names and constants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edgesdk.compress.sparsify import kept_weights
from edgesdk.cost import mil_bytes as mil
from edgesdk.cost.fusion import VIEWS, WEIGHTED, Kernel, fuse
from edgesdk.cost.mil_arguments import argument_bytes, scale_bytes
from edgesdk.cost.unrolled import unrolled
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import (
    GROUP_SIZE,
    KEPT_AS,
    PALETTE_BITS,
    WEIGHT_BYTES,
    WEIGHT_ONLY_SCHEMES,
    Scheme,
)

# Operations of an operator, where it is not one of its own name.
_OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "adaptive_avg_pool1d": ("reduce_mean",), "adaptive_avg_pool2d": ("reduce_mean",),
    "amax": ("reduce_max",), "avg_pool2d": ("avg_pool",), "bmm": ("matmul",), "cat": ("concat",),
    "chunk": ("split",), "conv1d": ("conv",), "conv2d": ("conv",), "conv3d": ("conv",),
    "conv_transpose1d": ("conv_transpose",), "conv_transpose2d": ("conv_transpose",),
    "div": ("real_div",), "hardswish": ("thresholded_relu", "sigmoid_hard", "mul"),
    "hardtanh": ("clip",), "max_pool2d": ("max_pool",), "mean": ("reduce_mean",),
    "permute": ("transpose",), "select": ("slice_by_index",), "slice": ("slice_by_index",),
    "sum": ("reduce_sum",), "upsample_bilinear2d": ("upsample_bilinear",),
    "upsample_nearest2d": ("upsample_nearest_neighbor",),
    "embedding": ("cast", "greater_equal", "add", "select", "cast", "gather"),
    "relu6": ("clip",), "scaled_dot_product_attention": ("mul", "matmul", "softmax", "matmul"),
}  # fmt: skip
_CLAMPS: Mapping[str, str] = {"relu": "relu"}  # others are a clip
_NOT_NEGATIVE = frozenset({"relu", "relu6", "hardtanh", "sigmoid", "softmax", "hardsigmoid"})
# What is not negative where its inputs are not; the first three are given scales with a zero point
# all the same.
_ZEROED = frozenset({"cat", "permute", "transpose"})
_KEEPS_SIGN = _ZEROED | VIEWS | {
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool2d", "chunk", "max_pool2d", "mean",
    "slice", "upsample_nearest2d",
}  # fmt: skip
_INTERLEAVE = 4  # operators of an interleaving concatenation
_MANIFEST_BYTES = 617
"""Of Manifest.json: two files, named by identifiers of one length."""
_PROGRAM_BYTES = 96
"""The program's function and block, opset and version."""
_BUILD_BYTES = 245
"""What the converter notes of itself in a program; narrowing weights drops it."""
_METADATA_BYTES = 501
"""What the description says of the model and of an input and an output of usual names."""


def coreml_bytes(
    graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme] = MappingProxyType({})
) -> float:
    """Return the bytes of the ``.mlpackage`` of a graph; ``formats`` names the operators that have
    another scheme than the network."""
    return _Lowering(graph, scheme, formats).size_bytes()


class _Lowering:
    """The operations of a program, one after the other, with the names that coremltools gives."""

    def __init__(self, graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme]) -> None:
        graph = unrolled(graph)
        self.graph, self.scheme, self.formats = graph, scheme, formats
        self.is_ios18 = scheme == "w4" or not {scheme, *formats.values()}.isdisjoint(KEPT_AS)
        self.kernels = {kernel.op.name: kernel for kernel in fuse(graph)}
        self.ops = {op.name: op for op in graph.ops}
        self.folded = {name for kernel in self.kernels.values() for name in kernel.folded}
        self.program = 0
        self.weights = 0
        self.reads = Counter(name for op in graph.ops for name in op.inputs)
        self.positive: set[str] = set()
        self.skipped = _interleaved(graph) if scheme != "int8" else frozenset()
        self.name_of: dict[str, str] = {}  # tensors by their name in the program
        self.times: dict[str, int] = {}
        self.stored: dict[object, str] = {}

    def size_bytes(self) -> float:
        for name, tensor in self.graph.tensors.items():
            if tensor.role == "input":
                self._input(name)
        for op in self.graph.ops:
            if op.name not in self.folded:
                self._twice(op)
                self._lower(op)
        for name, tensor in self.graph.tensors.items():
            if tensor.role == "output":
                self._add("cast", "output", tensor.shape, mil.reads("x", self._read(name)))
        fixed = _MANIFEST_BYTES + _PROGRAM_BYTES + _METADATA_BYTES + mil.HEADER_BYTES
        narrow = {self.scheme, *self.formats.values()} & set(WEIGHT_ONLY_SCHEMES)
        fixed += 0 if narrow else _BUILD_BYTES
        return float(fixed + self.program + self.weights)

    def _input(self, name: str) -> None:
        tensor = self.graph.tensors[name]
        reader = next((op for op in self.graph.ops if name in op.inputs), None)
        # The first operation of int8 is a conversion of its own, without a layer.
        layer = "" if reader is None or self.scheme == "int8" else reader.layer
        found = self._named(layer, "cast")
        self._add("cast", found, tensor.shape, mil.reads("x", "input"))
        self.name_of[name] = found
        if self.scheme == "int8" and tensor.dtype == "float32":
            self._convert(name, tensor.shape, signed=True)

    def _lower(self, op: Op) -> None:
        if op.name in self.skipped:
            self.name_of[op.outputs[0]] = self._read(op.inputs[0])
        elif op.kind == "batch_norm":
            self.name_of[op.outputs[0]] = self.name_of.get(op.inputs[0], "x")
        elif op.kind in WEIGHTED:
            self._weighted(op, self.kernels[op.name])
        elif op.kind in VIEWS:
            self._plain(op, ("squeeze" if op.kind == "squeeze" else "reshape",))
        else:
            # Attention is one operation from iOS 18 on, which w4 and masks need.
            is_whole = self.is_ios18 and op.kind == "scaled_dot_product_attention"
            self._plain(op, (op.kind,) if is_whole else _OPERATIONS.get(op.kind, (op.kind,)))
        kernel = self.kernels.get(op.name)
        clamp = self._clamp(kernel) if kernel is not None else None
        if kernel is not None and clamp is not None:
            kind = _CLAMPS.get(clamp.kind, "clip")
            shape = self.graph.tensors[clamp.outputs[0]].shape
            name = self._named(clamp.layer, kind)
            self._add(kind, name, shape, mil.reads("x", self.name_of[op.outputs[0]]))
            self.name_of[op.outputs[0]] = name
        last = clamp or op
        if last.kind in _NOT_NEGATIVE or (
            last.kind in _KEEPS_SIGN and self.positive.issuperset(op.inputs)
        ):
            self.positive.update(last.outputs)
        if kernel is not None:
            for inner, outer in zip(op.outputs, kernel.outputs, strict=False):
                self.name_of[outer] = self.name_of[inner]
                self._quantized(last, outer)

    def _quantized(self, last: Op, name: str) -> None:
        if self.scheme != "int8" or self.formats.get(last.name, self.scheme) != "int8":
            return
        signed = name not in self.positive or self.reads[name] > 1 or last.kind in _ZEROED
        self._convert(name, self.graph.tensors[name].shape, signed=signed)

    def _twice(self, op: Op) -> None:
        """Add the dequantize of its own through which a sum reads what others read too."""
        shared = [name for name in op.inputs if self.reads[name] > 1]
        if self.scheme != "int8" or op.kind != "add" or not shared:
            return
        name = self._named("", "dequantize")
        shape = self.graph.tensors[shared[0]].shape
        inputs = sum(mil.reads(key, name) for key in ("input", "scale", "zero_point"))
        self.program += mil.constant(f"{name}_scale", mil.immediate(2))
        self.program += mil.operation("dequantize", name, [shape], inputs)

    def _clamp(self, kernel: Kernel) -> Op | None:
        folded = [self.ops[name] for name in kernel.folded]
        return next((op for op in folded if op.kind != "batch_norm"), None)

    def _weighted(self, op: Op, kernel: Kernel) -> None:
        (kind,) = _OPERATIONS.get(op.kind, (op.kind,))
        name = self._named(op.layer, kind)
        scheme = self.formats.get(op.name, self.scheme)
        shape = self.graph.tensors[op.parameters[0]].shape
        if op.name not in self.formats:  # a step of an LSTM, which no format names
            scheme = (
                "w8" if scheme == "w4" and shape[1] % GROUP_SIZE else KEPT_AS.get(scheme, scheme)
            )
        weight, bias = f"{name}_weight", f"{name}_bias"
        key = (op.parameters, scheme)
        if key in self.stored:
            weight, bias = f"{self.stored[key]}_weight", f"{self.stored[key]}_bias"
        else:
            self.stored[key] = name
            if scheme in KEPT_AS:
                self._sparse(weight, shape, kernel, scheme)
            else:
                self._weight(weight, shape, kernel, scheme)
            self.program += mil.constant(
                bias, mil.constant_value((kernel.channels,)), (kernel.channels,)
            )
            self.weights += mil.blob_bytes(kernel.channels, 2)
        inputs = mil.reads("x", self._read(op.inputs[0]))
        inputs += mil.reads("weight", weight) + mil.reads("bias", bias)
        tensor = self.graph.tensors[op.outputs[0]]
        self._add(kind, name, tensor.shape, inputs, dimensions=len(tensor.shape) - 2)
        self.name_of[op.outputs[0]] = name

    def _weight(self, name: str, shape: tuple[int, ...], kernel: Kernel, scheme: Scheme) -> None:
        """Add a weight: a constant, or a constant expression that decodes one."""
        if scheme in ("fp16", "fp32"):
            self.program += mil.constant(name, mil.stored(shape), shape)
            self.weights += mil.blob_bytes(kernel.weights, WEIGHT_BYTES[scheme])
            return
        if scheme in PALETTE_BITS:
            self._palette(name, shape, kernel, PALETTE_BITS[scheme])
            return
        if self.is_ios18:  # from then on blocks along the inputs; int8 has one for all
            blocks = shape[1] // GROUP_SIZE if scheme == "w4" else 1
            groups = (shape[0], blocks, *(1 for _ in shape[2:]))
            attributes = mil.argument("data", mil.stored(shape))
            attributes += mil.argument("scale", mil.constant_value(groups))
            kind = "constexpr_blockwise_shift_scale"
            self.weights += mil.blob_bytes(math.prod(groups), 2)
        else:
            channels = (kernel.channels,)
            attributes = mil.entry("quantized_data", mil.stored(shape))
            attributes += mil.entry("axis", mil.immediate(1))
            attributes += mil.entry("scale", mil.constant_value(channels))
            attributes += mil.entry("zero_point", mil.constant_value(channels, 1))
            kind = "constexpr_affine_dequantize"
            self.weights += mil.blob_bytes(kernel.channels, 2) + mil.blob_bytes(kernel.channels, 1)
        self.program += mil.operation(kind, name, [shape], attributes=attributes)
        self.weights += mil.blob_bytes(kernel.weights, WEIGHT_BYTES[scheme])

    def _sparse(self, name: str, shape: tuple[int, ...], kernel: Kernel, scheme: Scheme) -> None:
        """Add a mask, what is left of a weight in a vector, and what decodes both of them."""
        axis = 1 if "transpose" in kernel.op.kind else 0
        kept = (kept_weights(shape, axis=axis),)
        ones = (1,) * len(shape)
        if scheme in PALETTE_BITS:
            kind, beside = "constexpr_lut_to_sparse", (*ones, 2 ** PALETTE_BITS[scheme], 1)
            keys = ("indices_mask", "indices_nonzero_data", "lut")
            decoded, mask = f"{name}_mask", mil.reads("mask", f"{name}_mask")
        else:
            kind = "constexpr_sparse_blockwise_shift_scale"
            beside = (*ones[:axis], shape[axis], *ones[axis + 1 :])
            keys = ("data_mask", "nonzero_data", "scale")
            # Nothing reads the mask that it gives: coremltools lets both read the stored one.
            decoded, mask = self._named("", kind), mil.argument("mask", mil.stored(shape))
        vector = f"{name}_nonzero_data"
        values = mil.stored(shape), mil.stored(kept), mil.constant_value(beside)
        arguments = sum(map(mil.argument, keys, values))
        arguments += mil.result(vector, kept)
        self.program += mil.operation(kind, decoded, [shape], attributes=arguments)
        reads = mask + mil.reads("nonzero_data", vector)
        self.program += mil.operation("constexpr_sparse_to_dense", name, [shape], reads)
        self.weights += mil.blob_bytes(kernel.weights, 1 / 8)
        self.weights += mil.blob_bytes(*kept, WEIGHT_BYTES[KEPT_AS[scheme]])
        self.weights += mil.blob_bytes(math.prod(beside), 2)

    def _palette(self, name: str, shape: tuple[int, ...], kernel: Kernel, bits: int) -> None:
        """Add a table of float16 values and the places in it, packed into bytes."""
        table, places = (2**bits,), (math.ceil(kernel.weights * bits / 8),)
        attributes = mil.entry("indices", mil.stored(places))
        attributes += mil.entry("lut", mil.constant_value(table))
        attributes += mil.entry("shape", mil.immediate(4 * len(shape), (len(shape),)))
        self.program += mil.operation(
            "constexpr_lut_to_dense", name, [shape], attributes=attributes
        )
        self.weights += mil.blob_bytes(*places, 1) + mil.blob_bytes(*table, 2)

    def _plain(self, op: Op, kinds: Sequence[str]) -> None:
        tensor = self.graph.tensors[op.outputs[0]]
        sources = [self._read(name) for name in op.inputs]
        shapes = [self.graph.tensors[name].shape for name in op.outputs]
        spatial = max(1, len(self.graph.tensors[op.inputs[0]].shape) - 2) if op.inputs else 1
        name = ""
        for kind in kinds:
            name = self._named(op.layer, kind)
            keys = ("values",) * len(sources) if kind == "concat" else ("x", "y", "z")
            inputs = sum(map(mil.reads, keys, sources))
            if kind == "gather":
                inputs += self._table(name, op)
            elif kind == kinds[-1] and op.parameters:
                inputs += self._vectors(name, op)
            self._add(kind, name, tensor.shape, inputs, dimensions=spatial, shapes=shapes)
            sources = [name, *sources[1:]]
        for index, output in enumerate(op.outputs):
            self.name_of[output] = name if not index else f"{name}_{index}"

    def _table(self, name: str, op: Op) -> int:
        """Add the table that a gather reads; return the bytes of reading it."""
        tensor = self.graph.tensors[op.parameters[0]]
        # Its type says the shape of a result, whose last two axes are as long as the table's.
        self.weights += mil.blob_bytes(tensor.elements, 2)
        shape = self.graph.tensors[op.outputs[0]].shape[-2:]
        self.program += mil.constant(f"{name}_x", mil.stored(shape), shape)
        return mil.reads("x", f"{name}_x")

    def _vectors(self, name: str, op: Op) -> int:
        """Add the vectors of a norm; return the bytes of reading them."""
        inputs = 0
        for key, parameter in zip(("gamma", "beta", "p", "q"), op.parameters, strict=False):
            tensor = self.graph.tensors[parameter]
            value = mil.constant_value(tensor.shape)
            self.program += mil.constant(f"{name}_{key}", value, tensor.shape)
            self.weights += mil.blob_bytes(tensor.elements, 2)
            inputs += mil.reads(key, f"{name}_{key}")
        return inputs

    def _add(
        self, kind: str, name: str, shape: mil.Shape, inputs: int, *, dimensions: int = 1,
        shapes: Sequence[mil.Shape] = (),
    ) -> None:  # fmt: skip
        """Add an operation that reads as many bytes, and its arguments."""
        constants, reads = argument_bytes(kind, len(name), dimensions, len(shape))
        self.program += constants + mil.operation(kind, name, shapes or [shape], inputs + reads)

    def _convert(self, tensor: str, shape: mil.Shape, *, signed: bool) -> None:
        """Add a tensor's quantize and dequantize; what is never negative has no zero point."""
        source = self._read(tensor)
        for kind in ("quantize", "dequantize"):
            name = self._named("", kind)
            constants, reads = scale_bytes(kind, len(name), signed=signed)
            reads += mil.reads("input", source)
            self.program += constants + mil.operation(kind, name, [shape], reads)
            source = name
        self.name_of[tensor] = source

    def _named(self, layer: str, kind: str) -> str:
        """Return the name of a layer's next operation of a kind."""
        path = layer.replace(".", "_")
        name = f"{path}_{kind}" if path else kind
        name = f"_{name}" if name[0].isdigit() else name
        seen = self.times.get(name, 0)
        self.times[name] = seen + 1
        return f"{name}_{seen}" if seen else name

    def _read(self, tensor: str) -> str:
        return self.name_of.get(tensor, tensor)


def _interleaved(graph: OpGraph) -> frozenset[str]:
    """Return the views and transposes behind a concatenation that interleaves by itself.

    Given   cat -> reshape [N, 2, C, H, W] -> transpose -> reshape [N, 2 C, H, W]
    Result  concat(interleave=True)
    """
    maker = {name: op for op in graph.ops for name in op.outputs}
    found: set[str] = set()
    for op in graph.ops:
        chain = [op]
        while len(chain) < _INTERLEAVE and chain[-1].inputs and chain[-1].inputs[0] in maker:
            chain.append(maker[chain[-1].inputs[0]])
        kinds = [member.kind for member in reversed(chain)]
        if kinds == ["cat", "reshape", "transpose", "reshape"]:
            found.update(member.name for member in chain[:-1])
    return frozenset(found)
