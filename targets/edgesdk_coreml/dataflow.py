"""Dataflow of a program read back: what holds weights, and what the file lets compute in int8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.artifact import OpCount
from edgesdk.compress.sparsify import kept_weights
from edgesdk_coreml.blobs import stored_bytes, stored_type
from edgesdk_coreml.package import Operation, Program, Reference

EXECUTOR = "coreml"
WEIGHTED_KINDS = frozenset({"conv", "conv_transpose", "linear"})
_MULTIPLYING = WEIGHTED_KINDS | {"matmul"}
_ACTIVATIONS = frozenset({"relu", "relu6", "clip", "leaky_relu"})

# What stays in int8 between dequantize and quantize: layers, sums and products, and what only
# compares, averages or moves. Transcendental functions are computed in floating point.
_INT8_KINDS = _MULTIPLYING | _ACTIVATIONS | {
    "add", "sub", "mul", "maximum", "minimum", "max_pool", "avg_pool", "reduce_mean", "concat",
    "reshape", "transpose", "squeeze", "expand_dims", "split", "slice_by_index", "pad",
}  # fmt: skip
_EIGHT_BITS = ("int8", "uint8")
_INDEX_TYPES = ("int32", "bool", "uint32", "int64")
_QUANTIZED_DATA = ("quantized_data", "data", "indices", "nonzero_data", "indices_nonzero_data")
_MASKS = ("mask", "data_mask", "indices_mask")


class Dataflow:
    """Where each value comes from and goes to, and what follows from it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.computed = [op for op in program.operations if not op.kind.startswith("constexpr_")]
        self._source = program.source_of()
        self._consumers = program.consumers_of()

    def weighted(self) -> Iterator[Operation]:
        """Yield the operations that multiply by stored weights, in order."""
        for op in self.computed:
            if op.kind in _MULTIPLYING and self.stored_weight(op) is not None:
                yield op

    def stored_weight(self, op: Operation) -> NDArray[Any] | None:
        """Return an operation's weight as it is stored (int8 where quantized, places of a table
        perhaps packed into bytes where palettised, a vector without zeros where sparse), None
        without one."""
        for parameter in _weight_parameters(op):
            array = self.program.constant(op, parameter)
            for decoder in self.decoders(op, parameter):
                held = [self.program.constant(decoder, name) for name in _QUANTIZED_DATA]
                array = next((data for data in held if data is not None), array)
            if array is not None and array.ndim > 0:
                return array
        return None

    def weight_type(self, op: Operation) -> str:
        """Return what an operation's weight is stored as: an element type, "lut4" where it is
        places of four bits in a table, nothing without a weight; "sparse50" behind it where a mask
        leaves half of each output channel out."""
        weight = self.stored_weight(op)
        if weight is None:
            return ""
        told, table = stored_type(weight), self.of_decoder(op, "lut")
        if table is not None:
            values = table.shape[0] if table.ndim == 1 else table.shape[-2]
            told = f"lut{values.bit_length() - 1}"
        mask = self.mask(op)
        if mask is None:
            return told
        axis = 1 if op.kind == "conv_transpose" else 0
        halved = np.count_nonzero(mask) <= kept_weights(mask.shape, axis=axis)
        return f"{told}_sparse50" if halved else f"{told} with {np.mean(mask == 0):.0%} zeros"

    def weight_shape(self, op: Operation) -> tuple[int, ...] | None:
        """Return the shape that an operation's weight is decoded to, None without one."""
        for parameter in _weight_parameters(op):
            decoder = self.decoder(op, parameter)
            if decoder is not None:
                return decoder.outputs[0].shape
        weight = self.stored_weight(op)
        return None if weight is None else weight.shape

    def mask(self, op: Operation) -> NDArray[Any] | None:
        """Return where a sparse weight is not zero, None of a weight that is not masked."""
        found = (self.of_decoder(op, name) for name in _MASKS)
        return next((mask for mask in found if mask is not None), None)

    def of_decoder(self, op: Operation, name: str) -> NDArray[Any] | None:
        """Return a constant of what decodes an operation's weight, None where nothing has it."""
        for parameter in _weight_parameters(op):
            for decoder in self.decoders(op, parameter):
                found = self.program.constant(decoder, name)
                if found is not None:
                    return found
        return None

    def decoders(self, op: Operation, parameter: str) -> Iterator[Operation]:
        """Yield what decodes an argument, the last first: a sparse one is decoded twice."""
        found = self.decoder(op, parameter)
        while found is not None:
            yield found
            found = self.decoder(found, "nonzero_data")

    def decoder(self, op: Operation, parameter: str) -> Operation | None:
        """Return the ``constexpr`` operation that decodes an argument, None where it is plain."""
        for binding in op.arguments.get(parameter, ()):
            source = self._source.get(binding.name) if isinstance(binding, Reference) else None
            if source is not None and source.kind.startswith("constexpr_"):
                return source
        return None

    def compute_dtype(self, op: Operation) -> str:
        """Return the type the file lets an operation compute in; the unit decides what it does."""
        if op.kind in ("quantize", "dequantize") or self.computes_int8(op):
            return "int8"
        return op.outputs[0].dtype

    def told_dtype(self, op: Operation) -> str:
        """Return the type an operation computes in, and its weight's where that is narrower."""
        computing = self.compute_dtype(op)
        told = self.weight_type(op) if op.kind in _MULTIPLYING else ""
        if computing == "int8" or told in ("", "float16", "float32"):
            return computing
        return f"{computing}, {told} weights"

    def scheme_found(self, op: Operation) -> str:
        """Return the scheme that an operation's weight and arithmetic are, in words where none."""
        told = self.weight_type(op)
        if self.computes_int8(op):
            return "int8" if told == "int8" else f"{told} weights, int8 inputs"
        plain = {
            "float32": "fp32", "float16": "fp16", "int8": "w8", "int4": "w4",
            "int8_sparse50": "w8_sparse50",
        }  # fmt: skip
        return plain.get(told, told)

    def computes_int8(self, op: Operation) -> bool:
        """Return whether all an operation reads is int8: its weights, and what it is fed."""
        if op.outputs[0].dtype in _EIGHT_BITS:
            return True
        if op.kind not in _INT8_KINDS:
            return False
        told = self.weight_type(op) if op.kind in _MULTIPLYING else ""
        if told and told not in _EIGHT_BITS:
            return False
        fed = self.fed(op)
        return bool(fed) and all(self._is_int8(name, op) for name in fed)

    def count_operators(self) -> tuple[OpCount, ...]:
        """Return how many operations there are of each kind and type, with their weights' bytes.

        A tensor that several operations share counts once, for the first.
        """
        counts: Counter[tuple[str, str]] = Counter()
        stored: Counter[tuple[str, str]] = Counter()
        seen: set[int] = set()
        for op in self.computed:
            key = (op.kind, self.told_dtype(op))
            counts[key] += 1
            for array in self.stored(op):
                if id(array) not in seen:
                    seen.add(id(array))
                    stored[key] += stored_bytes(stored_type(array), array.size)
        return tuple(
            OpCount(
                op=kind, dtype=dtype, where=EXECUTOR, count=count, weight_bytes=stored[kind, dtype]
            )
            for (kind, dtype), count in sorted(counts.items())
        )

    def stored(self, op: Operation) -> Iterator[NDArray[Any]]:
        """Yield the constant tensors an operation reads, as stored, without indices and shapes."""
        for parameter in op.arguments:
            decoder = self.decoder(op, parameter)
            if decoder is not None:
                yield from self.stored(decoder)
                continue
            array = self.program.constant(op, parameter)
            if array is not None and array.ndim > 0 and array.dtype.name not in _INDEX_TYPES:
                yield array

    def fed(self, op: Operation) -> list[str]:
        """Return the values an operation is fed, without constants and decoded weights."""
        return [
            binding.name
            for parameter, bindings in op.arguments.items()
            for binding in bindings
            if isinstance(binding, Reference)
            and binding.name not in self.program.constants
            and self.decoder(op, parameter) is None
        ]

    def _is_int8(self, name: str, consumer: Operation) -> bool:
        source = self._source.get(name)
        if source is None:
            return False
        if source.kind == "dequantize":
            return True
        # An activation is applied to the accumulator of the operation before it, if it alone
        # reads that operation's result.
        alone = self._consumers.get(name) == (consumer,)
        return consumer.kind in _ACTIVATIONS and alone and self.computes_int8(source)


def _weight_parameters(op: Operation) -> tuple[str, ...]:
    return ("weight",) if op.kind in WEIGHTED_KINDS else ("x", "y")
