"""A ``.tflite`` file as data: tensors, operators, and how its signature names them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import ArtifactError
from edgesdk_tflite.extent import check_extent
from edgesdk_tflite.packages import require_converter

_IDENTIFIER = b"TFL3"
ETHOS_U = "CUSTOM ethos-u"
"""What Vela leaves of the operators that it compiled; its inputs are the command stream, the
weights, memory to compute in, and then what the operators read."""
_ETHOS_U_MEMORY = slice(2, 4)

# What the generated flatbuffer reader raises for offsets and lengths that lead nowhere.
_MALFORMED = (
    struct.error, IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError,
)  # fmt: skip

# Operators that multiply by a kernel, and at which inputs one can be.
KERNEL_INPUTS: Mapping[str, tuple[int, ...]] = {
    "CONV_2D": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "CONV_3D": (1,),
    "TRANSPOSE_CONV": (1,),
    "FULLY_CONNECTED": (0, 1),
    "BATCH_MATMUL": (0, 1),
}


@dataclass(frozen=True, kw_only=True)
class FileTensor:
    """One tensor of a subgraph. ``data`` holds a constant's raw bytes, None for an activation.

    ``buffer`` is what identifies a constant: tensors that share it share its bytes. ``scales`` and
    ``zero_points`` have one entry, or one a channel along ``axis``; none means not quantized.
    ``block_size``: how many elements along the last axis share one of the ``block_scales``.
    ``is_dynamic``: the file leaves a size other than the batch open until it runs;
    ``is_variable``: its values stay from one inference to the next.
    """

    subgraph: int
    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    data: NDArray[np.uint8] | None
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    block_size: int = 0
    block_scales: NDArray[np.float16] | None = None
    is_dynamic: bool = False
    is_variable: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """The tensor's identity in the file."""
        return self.subgraph, self.index

    @property
    def scale(self) -> float | None:
        """The one scale of a tensor quantized as a whole, else None."""
        return self.scales[0] if len(self.scales) == 1 else None

    @property
    def zero_point(self) -> int | None:
        """The zero point beside ``scale``, None where that is None."""
        return (self.zero_points or (0,))[0] if len(self.scales) == 1 else None

    def int4_values(self) -> NDArray[np.int8]:
        """Return the values of an int4 constant, two of which share a byte, the low half first."""
        assert self.data is not None
        halves = np.stack([self.data & 15, self.data >> 4], axis=-1).reshape(-1)[: self.elements]
        signed: NDArray[np.int8] = ((halves ^ 8).astype(np.int8) - 8).reshape(self.shape)
        return signed

    def spread_scales(self) -> NDArray[np.float32]:
        """Return the scale of every element of a constant that is quantized in blocks."""
        assert self.block_scales is not None
        rows = self.block_scales.astype(np.float32).reshape(self.shape[0], -1)
        spread: NDArray[np.float32] = np.repeat(rows, self.block_size, axis=1)
        return spread.reshape(self.shape)

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, kw_only=True)
class FileOperator:
    """One operator: the built-in's name ("CONV_2D") or "CUSTOM name"; tensors in file order.

    An optional input that is absent is None, so that positions keep their meaning. ``options``
    are the plain numbers among the schema's options of the operator, under the schema's names.
    """

    name: str
    inputs: tuple[FileTensor | None, ...]
    outputs: tuple[FileTensor, ...]
    options: Mapping[str, float] = field(default_factory=dict)

    @property
    def activations(self) -> tuple[FileTensor, ...]:
        """The tensors computed at run time that it reads or writes."""
        return tuple(t for t in (*self.inputs, *self.outputs) if t is not None and t.data is None)

    @property
    def workspace(self) -> tuple[FileTensor, ...]:
        """The inputs that are memory to compute in and hold nothing yet; only an Ethos-U's."""
        inputs = self.inputs[_ETHOS_U_MEMORY] if self.name == ETHOS_U else ()
        return tuple(tensor for tensor in inputs if tensor is not None)


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A parsed file: operators of all subgraphs in execution order, inputs and outputs by name.

    ``inputs`` and ``outputs`` are those of the first signature, in its order; a file without
    signatures has the main subgraph's, under their tensors' names. ``input_order`` and
    ``output_order`` are the tensor indices in the order the main subgraph lists them.
    ``subgraphs`` counts the subgraphs, ``constants_outside`` the constants that the file keeps
    behind the flatbuffer.
    """

    operators: tuple[FileOperator, ...]
    inputs: Mapping[str, FileTensor]
    outputs: Mapping[str, FileTensor]
    input_order: tuple[int, ...]
    output_order: tuple[int, ...]
    constants_outside: int
    subgraphs: int = 1

    def input(self, name: str) -> FileTensor:
        """Return the input of that name; ``ArtifactError`` where the file has none."""
        return _named(self.inputs, name, "input")

    def output(self, name: str) -> FileTensor:
        """Return the output of that name; ``ArtifactError`` where the file has none."""
        return _named(self.outputs, name, "output")

    def consumers(self, tensor: FileTensor) -> tuple[FileOperator, ...]:
        """Return the operators that read a tensor."""
        return tuple(self._consumers.get(tensor.key, ()))

    def producer(self, tensor: FileTensor) -> FileOperator | None:
        """Return the operator that writes a tensor, None for inputs and constants."""
        return self._producers.get(tensor.key)

    @cached_property
    def _producers(self) -> Mapping[tuple[int, int], FileOperator]:
        return {tensor.key: op for op in self.operators for tensor in op.outputs}

    @cached_property
    def _consumers(self) -> Mapping[tuple[int, int], list[FileOperator]]:
        readers: dict[tuple[int, int], list[FileOperator]] = {}
        for op in self.operators:
            for key in {tensor.key for tensor in op.inputs if tensor is not None}:
                readers.setdefault(key, []).append(op)
        return readers

    def constant(self, tensor: FileTensor | None) -> FileTensor | None:
        """Return the stored constant a tensor is, or is unpacked from; None if it is computed.

        Looks through operators that only restate one constant, such as the DEQUANTIZE in front
        of a float16 kernel.
        """
        while tensor is not None and tensor.data is None:
            op = self.producer(tensor)
            if op is None or any(t is not None and t.data is None for t in op.inputs[1:]):
                return None
            tensor = op.inputs[0] if op.inputs else None
        return tensor

    def kernels(self) -> Iterator[tuple[FileOperator, FileTensor]]:
        """Yield each constant that an operator multiplies by, with the operator."""
        for op in self.operators:
            for position in KERNEL_INPUTS.get(op.name, ()):
                kernel = self.constant(op.inputs[position]) if position < len(op.inputs) else None
                if kernel is not None:
                    yield op, kernel


def read_model(path: Path) -> ModelFile:
    """Return the parsed file; ``ArtifactError`` where it is missing or not a ``.tflite`` file."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise ArtifactError(f"{path.name} cannot be read: {problem}") from None
    return parse_model(content, path.name)


def parse_model(content: bytes, name: str = "model.tflite") -> ModelFile:
    """Return the parsed content; ``ArtifactError`` where it is not a ``.tflite`` file."""
    if content[4:8] != _IDENTIFIER:
        raise ArtifactError(f"{name} is not a .tflite file: its identifier is {content[4:8]!r}")
    try:
        require_converter()
        check_extent(content)
        return _model_file(unpack(content), constants_outside(content))
    except _MALFORMED as problem:
        raise ArtifactError(f"{name} is a malformed .tflite file: {problem!r}") from None


def unpack(content: bytes) -> Any:
    """Return the schema's mutable object tree (``ModelT``) of a file's content.

    Constants that the file keeps behind the flatbuffer are in the tree like all others, so that
    ``pack(unpack(content))`` has every constant inside: TensorFlow Lite Micro takes those behind
    it for memory to compute in, and answers with garbage.
    """
    require_converter()
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in _outside(model):
        end = buffer.offset + buffer.size
        if end > len(content):
            raise IndexError(f"a constant ends at byte {end} of {len(content)}")
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return model


def constants_outside(content: bytes) -> int:
    """Return how many constants the file keeps behind the flatbuffer instead of inside."""
    from ai_edge_litert import schema_py_generated as schema

    return len(_outside(schema.ModelT.InitFromPackedBuf(content, 0)))


def _outside(model: Any) -> list[Any]:
    # The schema reserves offsets 0 and 1 for "none".
    return [buffer for buffer in items(model.buffers) if buffer.offset > 1]


def pack(model: Any) -> bytes:
    """Return the file content of a schema's object tree; equal trees give equal bytes."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def operator_name(model: Any, operator: Any) -> str:
    """Return the built-in's name of a schema operator, or "CUSTOM" and its own name."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Files older than the 128th operator keep the code in the deprecated field only.
    name = enum_names("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return f"CUSTOM {_text(code.customCode)}" if name == "CUSTOM" else name


def _model_file(model: Any, outside: int) -> ModelFile:
    graphs = [_tensors(model, index, graph) for index, graph in enumerate(model.subgraphs)]
    operators = [
        operator
        for graph, tensors in zip(model.subgraphs, graphs, strict=True)
        for operator in _operators(model, graph, tensors)
    ]
    signature = next(iter(items(model.signatureDefs)), None)
    index = signature.subgraphIndex if signature else 0
    main, tensors = model.subgraphs[index], graphs[index]
    inputs, outputs = ([int(i) for i in items(order)] for order in (main.inputs, main.outputs))
    if not (inputs and outputs):
        raise ValueError("the file has no inputs or no outputs")
    return ModelFile(
        operators=tuple(operators),
        inputs=_by_name(signature.inputs, tensors) if signature else _by_tensor(inputs, tensors),
        outputs=_by_name(signature.outputs, tensors) if signature else _by_tensor(outputs, tensors),
        input_order=tuple(inputs),
        output_order=tuple(outputs),
        constants_outside=outside,
        subgraphs=len(graphs),
    )


def _tensors(model: Any, subgraph: int, graph: Any) -> list[FileTensor]:
    dtypes = enum_names("TensorType")
    found = []
    for index, tensor in enumerate(items(graph.tensors)):
        data = model.buffers[tensor.buffer].data
        quantization = tensor.quantization
        block_size, block_scales = _blocks(model, graph, quantization)
        found.append(
            FileTensor(
                subgraph=subgraph,
                index=index,
                name=_text(tensor.name),
                shape=tuple(int(size) for size in items(tensor.shape)),
                dtype=dtypes[tensor.type].lower(),
                buffer=int(tensor.buffer),
                data=None if data is None or len(data) == 0 else np.asarray(data, np.uint8),
                scales=tuple(float(s) for s in items(quantization and quantization.scale)),
                zero_points=tuple(int(z) for z in items(quantization and quantization.zeroPoint)),
                axis=int(quantization.quantizedDimension) if quantization else 0,
                block_size=block_size,
                block_scales=block_scales,
                is_dynamic=any(size < 0 for size in items(tensor.shapeSignature)[1:]),
                is_variable=bool(tensor.isVariable),
            )
        )
    return found


def _blocks(model: Any, graph: Any, quantization: Any) -> tuple[int, NDArray[np.float16] | None]:
    """Return size and scales of a tensor's blocks; size 0 where it is not quantized in blocks."""
    details = quantization.details if quantization else None
    if details is None or not getattr(details, "blockSize", 0):
        return 0, None
    scales = model.buffers[graph.tensors[details.scales].buffer].data
    return int(details.blockSize), np.asarray(scales, np.uint8).view(np.float16)


def _operators(model: Any, graph: Any, tensors: list[FileTensor]) -> Iterator[FileOperator]:
    """Yield a subgraph's operators; ``ValueError`` where one reads what none before it wrote."""
    known = {int(index) for index in items(graph.inputs)}
    for position, packed in enumerate(items(graph.operators)):
        operator = _operator(model, packed, tensors)
        known |= {tensor.index for tensor in operator.workspace}
        for tensor in operator.inputs:
            if tensor is None or tensor.data is not None or tensor.is_variable:
                continue
            if tensor.index not in known:
                raise ValueError(f"operator {position} reads {tensor.name!r} before it exists")
        written = {tensor.index for tensor in operator.outputs}
        if written & known:
            raise ValueError(f"operator {position} writes a tensor that exists already")
        known |= written
        yield operator


def _operator(model: Any, operator: Any, tensors: list[FileTensor]) -> FileOperator:
    options = vars(operator.builtinOptions) if operator.builtinOptions else {}
    return FileOperator(
        name=operator_name(model, operator),
        # The schema writes -1 for an optional input that is not there.
        inputs=tuple(tensors[i] if i >= 0 else None for i in items(operator.inputs)),
        outputs=tuple(tensors[i] for i in items(operator.outputs)),
        options={n: value for n, value in options.items() if isinstance(value, int | float)},
    )


def _named(tensors: Mapping[str, FileTensor], name: str, kind: str) -> FileTensor:
    if name not in tensors:
        raise ArtifactError(f"the file has no {kind} {name!r}", expected=f"one of {list(tensors)}")
    return tensors[name]


def _by_name(entries: Any, tensors: list[FileTensor]) -> Mapping[str, FileTensor]:
    return {_text(entry.name): tensors[entry.tensorIndex] for entry in items(entries)}


def _by_tensor(indices: list[int], tensors: list[FileTensor]) -> Mapping[str, FileTensor]:
    return {tensors[index].name or f"tensor {index}": tensors[index] for index in indices}


@cache
def enum_names(enumeration: str) -> Mapping[int, str]:
    """Return the names of a schema's enumeration by their numbers."""
    from ai_edge_litert import schema_py_generated as schema

    members = vars(getattr(schema, enumeration)).items()
    return {value: name for name, value in members if isinstance(value, int)}


def items(vector: Any) -> list[Any]:
    """Return a schema vector's items; an absent vector has none."""
    return [] if vector is None else list(vector)


def _text(name: bytes | str | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name or ""
