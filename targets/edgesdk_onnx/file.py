"""A ``.onnx`` read back: every operator, the type it computes in, and its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.artifact import OpCount, inside
from edgesdk.errors import ArtifactError
from edgesdk_onnx.placement import RECURRENT, WEIGHTED

_LARGEST_BYTES = 2**31 - 1
_QUANTIZE, _DECODE = "QuantizeLinear", "DequantizeLinear"
Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of the file."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Weight:
    """The constant a node multiplies with, decoded: ``values``, as ``dtype`` has them stored.

    ``step`` is what one integer is worth, broadcast to the values; None where they are float.
    """

    values: NDArray[np.float32]
    dtype: str
    step: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator; ``dtype`` is "int8" where all it reads was quantized, else its result's type.

    ``constants`` maps what it reads of the file's constants to bytes, scales included.
    """

    name: str
    op: str
    dtype: str
    constants: Mapping[str, int]
    weight: Weight | None = None
    bias: NDArray[np.float32] | None = None
    transposed: bool = False

    @property
    def precision(self) -> str:
        """What the operator computes in, and its weights' type where that is another one."""
        if self.weight is None or self.weight.dtype == self.dtype:
            return self.dtype
        return f"{self.dtype}, {self.weight.dtype} weights"


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What a file holds. ``defects`` are the rules of TensorRT's quantization that it breaks."""

    opset: int
    ir_version: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    defects: tuple[str, ...]


def read_proto(folder: Path, name: str) -> Any:
    """Return the file as a checked ``ModelProto``.

    Raises ``ArtifactError`` for a file that is none, breaks ONNX's own rules, is larger than one
    can be, or refers to data outside itself.
    """
    import onnx

    path = inside(folder, name)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ArtifactError(f"{name} is larger than an ONNX file can be")
        proto = onnx.ModelProto.FromString(path.read_bytes())
        if any(tensor.data_location for tensor in proto.graph.initializer):
            raise ArtifactError(f"{name} refers to weights in another file, which is not read")
        onnx.checker.check_model(proto, full_check=True)
    except ArtifactError:
        raise
    except Exception as problem:  # whatever the parser trips over in bytes that are no model
        raise ArtifactError(
            f"{name} is not a readable ONNX model: {str(problem).splitlines()[0]}",
            next_step="copy the artifact again, or compile it anew",
        ) from problem
    return proto


def read_file(folder: Path, name: str) -> ModelFile:
    """Return what the ``.onnx`` of that name holds; ``ArtifactError`` if it cannot be read."""
    return _Reading.of(read_proto(folder, name)).file()


def count_operators(file: ModelFile) -> tuple[OpCount, ...]:
    """Return the operators by kind and type; a constant that several read counts once."""
    counts: Counter[tuple[str, str]] = Counter()
    held: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    for node in file.nodes:
        key = (node.op, node.precision)
        counts[key] += 1
        held[key] += sum(size for name, size in node.constants.items() if name not in seen)
        seen.update(node.constants)
    return tuple(
        OpCount(op=op, dtype=dtype, where="tensorrt", count=count, weight_bytes=held[op, dtype])
        for (op, dtype), count in counts.items()
    )


@dataclass(kw_only=True)
class _Reading:
    """A graph being read: its constants, the type of each tensor, and the node that makes it."""

    proto: Any
    constants: dict[str, Array]
    types: dict[str, str]
    makers: dict[str, Any]
    defects: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, proto: Any) -> _Reading:
        from onnx import numpy_helper, shape_inference

        graph = shape_inference.infer_shapes(proto, strict_mode=True).graph
        constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        values = (*graph.input, *graph.value_info, *graph.output)
        types = {v.name: _dtype(v.type.tensor_type.elem_type) for v in values}
        types |= {name: array.dtype.name for name, array in constants.items()}
        makers = {name: node for node in graph.node for name in node.output}
        return cls(proto=proto, constants=constants, types=types, makers=makers)

    def file(self) -> ModelFile:
        graph = self.proto.graph
        nodes = tuple(self.node(node) for node in graph.node if not self.is_weight(node))
        self.check_quantization()
        return ModelFile(
            opset=next(item.version for item in self.proto.opset_import if not item.domain),
            ir_version=self.proto.ir_version,
            inputs=tuple(map(_tensor, graph.input)),
            outputs=tuple(map(_tensor, graph.output)),
            nodes=nodes,
            defects=tuple(self.defects),
        )

    def is_weight(self, node: Any) -> bool:
        """Return whether a node only decodes a constant, which belongs to the node reading it."""
        return node.op_type == _DECODE and node.input[0] in self.constants

    def decoder(self, name: str) -> Any | None:
        maker = self.makers.get(name)
        return maker if maker is not None and maker.op_type == _DECODE else None

    def node(self, node: Any) -> Node:
        weight = self.weight(node)
        is_bias = weight is not None and len(node.input) > 2 and node.input[2] in self.constants
        return Node(
            name=node.name,
            op=node.op_type,
            dtype=self.dtype(node),
            constants={name: self.constants[name].nbytes for name in self.read_by(node)},
            weight=weight,
            bias=self.constants[node.input[2]].astype(np.float32) if is_bias else None,
            transposed=weight is not None and self.is_transposed(node),
        )

    def read_by(self, node: Any) -> Iterator[str]:
        for name in node.input:
            maker = self.decoder(name)
            if maker is not None and self.is_weight(maker):
                yield from maker.input
            elif name in self.constants:
                yield name

    def dtype(self, node: Any) -> str:
        result = self.types.get(node.output[0], "unknown")
        if node.op_type in (_QUANTIZE, _DECODE):
            return f"{self.types.get(node.input[0], 'unknown')}->{result}"
        limit = 2 if node.op_type in WEIGHTED else len(node.input)  # a bias stays float
        read = [name for name in list(node.input)[:limit] if name]
        decoders = [self.decoder(name) for name in read]
        if not read or any(decoder is None for decoder in decoders):
            return result
        stored = {self.types.get(decoder.input[0], "unknown") for decoder in decoders if decoder}
        return stored.pop() if len(stored) == 1 else result

    def weight(self, node: Any) -> Weight | None:
        """Return the constant of a weighted node, None for all others and where both vary."""
        if node.op_type in RECURRENT:
            values = self.constants.get(node.input[1])
        elif node.op_type in WEIGHTED:
            found = [w for name in list(node.input)[1::-1] if (w := self.decoded(name)) is not None]
            return found[0] if found else None
        else:
            return None
        if values is None:
            return None
        return Weight(values=values.astype(np.float32), dtype=values.dtype.name)

    def decoded(self, name: str) -> Weight | None:
        if name in self.constants and self.constants[name].ndim > 1:
            array = self.constants[name]
            return Weight(values=array.astype(np.float32), dtype=array.dtype.name)
        decoder = self.decoder(name)
        if decoder is None or not self.is_weight(decoder):
            return None
        integers = self.constants[decoder.input[0]]
        step = self.constants[decoder.input[1]].astype(np.float32)
        if step.ndim == 1:
            axis = next((a.i for a in decoder.attribute if a.name == "axis"), 1)
            step = step.reshape([-1 if d == axis else 1 for d in range(integers.ndim)])
        values = integers.astype(np.float32) * step
        return Weight(
            values=values,
            dtype=integers.dtype.name,
            step=np.broadcast_to(step, values.shape),
        )

    def is_transposed(self, node: Any) -> bool:
        """Return whether the constant is ``[in, out]`` where PyTorch's is ``[out, in]``."""
        if node.op_type == "Gemm":
            return not any(a.name == "transB" and a.i for a in node.attribute)
        return bool(node.op_type == "MatMul")

    def check_quantization(self) -> None:
        """Collect what TensorRT's explicit quantization does not take."""
        readers: Counter[str] = Counter(n for node in self.proto.graph.node for n in node.input)
        for node in self.proto.graph.node:
            if node.op_type not in (_QUANTIZE, _DECODE):
                continue
            scale = self.constants.get(node.input[1])
            zero = self.constants.get(node.input[2]) if len(node.input) > 2 else None
            if scale is None or not _are_positive(scale):
                self.defects.append(f"{node.name} has no constant, positive scale")
            if zero is None or zero.dtype != np.int8 or zero.any():
                self.defects.append(f"{node.name} has a zero point that is not an int8 zero")
            if self.is_weight(node) and bool(np.any(self.constants[node.input[0]] == -128)):
                self.defects.append(f"{node.name} decodes -128, which is not symmetric")
            source = self.makers.get(node.input[0])
            if node.op_type == _DECODE and not self.is_weight(node) and (
                source is None or source.op_type != _QUANTIZE or source.input[1] != node.input[1]
            ):  # fmt: skip
                self.defects.append(
                    f"{node.name} does not decode what was quantized with its scale"
                )
            if node.op_type == _QUANTIZE and self.splits_a_layer(node, readers):
                self.defects.append(f"{node.name} stands between a layer and its activation")

    def splits_a_layer(self, node: Any, readers: Counter[str]) -> bool:
        """Return whether a layer's result is quantized for its own ReLU or bias alone."""
        maker = self.makers.get(node.input[0])
        if maker is None or maker.op_type not in WEIGHTED or readers[node.input[0]] > 1:
            return False
        decoders = [n for n in self.proto.graph.node if node.output[0] in n.input]
        following = [n for d in decoders for n in self.proto.graph.node if d.output[0] in n.input]
        return any(n.op_type in ("Relu", "Clip", "BatchNormalization") for n in following)


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value for d in kind.shape.dim)
    return Tensor(name=value.name, shape=shape, dtype=_dtype(kind.elem_type))


def _dtype(elem_type: int) -> str:
    from onnx import helper

    return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).name)


def _are_positive(scale: NDArray[np.generic]) -> bool:
    numbers = scale.astype(np.float64)
    return bool(np.all(np.isfinite(numbers) & (numbers > 0)))
