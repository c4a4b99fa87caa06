"""A package read back: the ML program of a saved ``.mlpackage``, from its own bytes.

It reads the file format (Core ML's protocol buffers) and not coremltools' converter, so what is
counted, compared and evaluated is what is in the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import ArtifactError, UnsupportedModel
from edgesdk_coreml.blobs import PACKED_BITS, BlobFile, stored_bytes, unpack
from edgesdk_coreml.toolchain import import_coremltools

SPECIFICATION = Path("Data") / "com.apple.CoreML" / "model.mlmodel"
WEIGHTS = Path("Data") / "com.apple.CoreML" / "weights" / "weight.bin"
# The enumeration DataType in MIL.proto, as far as programs emitted here and NumPy have it.
_ELEMENT_TYPES: Mapping[int, str] = {
    1: "bool", 2: "string", 10: "float16", 11: "float32", 21: "int8", 22: "int16", 23: "int32",
    25: "int4",
    31: "uint8", 32: "uint16", 33: "uint32",
    35: "uint4", 36: "uint2", 37: "uint1", 38: "uint6", 39: "uint3",
}  # fmt: skip
_WEIGHTS_REFERENCE = "@model_path/weights/weight.bin"

Constant = NDArray[Any] | str


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of the program: its name, element type ("float16", "int8", ...) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Reference:
    """An argument that names a value of the program (a constant is given as itself)."""

    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One operation: its MIL type, its name (that of its first output) and its arguments."""

    kind: str
    name: str
    arguments: Mapping[str, tuple[Reference | Constant, ...]]
    outputs: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """The function ``main`` in order, ``const`` operations resolved into ``constants``.

    ``features`` are the inputs and outputs an app sees, ``inputs`` and ``outputs`` the program's.
    """

    operations: tuple[Operation, ...]
    constants: Mapping[str, Constant]
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    input_features: tuple[Value, ...]
    output_features: tuple[Value, ...]
    opset: str
    specification_version: int
    metadata: Mapping[str, str]

    def constant(self, op: Operation, parameter: str) -> NDArray[Any] | None:
        """Return the array an operation was given as a constant, None where it was not."""
        for binding in op.arguments.get(parameter, ()):
            found = self.constants.get(binding.name) if isinstance(binding, Reference) else binding
            return None if isinstance(found, str) else found
        return None

    def source_of(self) -> Mapping[str, Operation]:
        """Return the operation that makes each value; inputs and constants have none."""
        return {value.name: op for op in self.operations for value in op.outputs}

    def consumers_of(self) -> Mapping[str, tuple[Operation, ...]]:
        """Return the operations that read each value, in program order."""
        consumers: dict[str, list[Operation]] = {}
        for op in self.operations:
            for name in referenced(op):
                consumers.setdefault(name, []).append(op)
        return {name: tuple(ops) for name, ops in consumers.items()}


def referenced(op: Operation) -> Iterator[str]:
    """Yield the names of the values and named constants an operation reads."""
    for bindings in op.arguments.values():
        yield from (binding.name for binding in bindings if isinstance(binding, Reference))


def read_program(package: Path) -> Program:
    """Return the ML program of a ``.mlpackage`` folder.

    Raises ``ArtifactError`` for a file that is missing, cut short or not an ML program, and
    ``UnsupportedModel`` for control flow, which no model emitted here has.
    """
    specification = read_specification(package)
    functions = specification.mlProgram.functions
    if specification.WhichOneof("Type") != "mlProgram" or list(functions) != ["main"]:
        raise ArtifactError(f"{package.name} is not an ML program with the one function 'main'")
    function = functions["main"]
    block = function.block_specializations[function.opset]
    blobs = BlobFile(package / WEIGHTS)
    constants: dict[str, Constant] = {}
    operations = []
    for spec in block.operations:
        if not spec.outputs:
            raise ArtifactError(f"an operation {spec.type!r} of {package.name} gives nothing")
        if spec.blocks:
            raise UnsupportedModel(f"the Core ML operation {spec.type!r} holds control flow")
        if spec.type == "const":
            constants[spec.outputs[0].name] = _constant(spec.attributes["val"], blobs)
        else:
            operations.append(_operation(spec, blobs))
    _check_order(function, block, operations, constants)
    description = specification.description
    return Program(
        operations=tuple(operations),
        constants=constants,
        inputs=tuple(_value(named) for named in function.inputs),
        outputs=tuple(block.outputs),
        input_features=tuple(_feature(feature) for feature in description.input),
        output_features=tuple(_feature(feature) for feature in description.output),
        opset=function.opset,
        specification_version=specification.specificationVersion,
        metadata=dict(description.metadata.userDefined),
    )


def read_specification(package: Path) -> Any:
    """Return the ``Model`` protocol buffer of a package; ``ArtifactError`` if it cannot be read."""
    import_coremltools()
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = package / SPECIFICATION
    specification = Model_pb2.Model()
    try:
        specification.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as problem:
        raise ArtifactError(
            f"{path.name} of {package.name} cannot be read as a Core ML model: {problem}",
            next_step="copy the artifact again, or compile it anew",
        ) from None
    return specification


def _check_order(
    function: Any, block: Any, operations: list[Operation], constants: Mapping[str, Constant]
) -> None:
    """Raise ``ArtifactError`` where a value is read before anything gives it."""
    given = {named.name for named in function.inputs} | set(constants)
    for op in operations:
        for name in referenced(op):
            if name not in given:
                raise ArtifactError(f"{op.kind} ({op.name}) reads {name!r} before it is given")
        given |= {value.name for value in op.outputs}
    missing = [name for name in block.outputs if name not in given]
    if missing:
        raise ArtifactError(f"nothing in the program gives the outputs {missing}")


def _operation(spec: Any, blobs: BlobFile) -> Operation:
    arguments: dict[str, tuple[Reference | Constant, ...]] = {}
    for parameter, argument in spec.inputs.items():
        arguments[parameter] = tuple(
            Reference(binding.name)
            if binding.WhichOneof("binding") == "name"
            else _constant(binding.value, blobs)
            for binding in argument.arguments
        )
    for attribute, value in spec.attributes.items():
        if attribute != "name":
            arguments[attribute] = (_constant(value, blobs),)
    return Operation(
        kind=spec.type,
        name=spec.outputs[0].name,
        arguments=arguments,
        outputs=tuple(_value(named) for named in spec.outputs),
    )


def _value(named: Any) -> Value:
    dtype, shape = _tensor_type(named.type)
    return Value(name=named.name, dtype=dtype, shape=shape)


def _tensor_type(spec: Any) -> tuple[str, tuple[int, ...]]:
    if spec.WhichOneof("type") != "tensorType":
        raise UnsupportedModel("the Core ML program holds a value that is not a tensor")
    tensor = spec.tensorType
    if any(dimension.WhichOneof("dimension") != "constant" for dimension in tensor.dimensions):
        raise UnsupportedModel("the Core ML program holds a tensor of unknown shape")
    shape = tuple(int(dimension.constant.size) for dimension in tensor.dimensions)
    dtype = _ELEMENT_TYPES.get(tensor.dataType)
    if dtype is None:
        raise UnsupportedModel(f"the Core ML program holds a tensor of data type {tensor.dataType}")
    return dtype, shape


def _constant(value: Any, blobs: BlobFile) -> Constant:
    dtype, shape = _tensor_type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        if value.blobFileValue.fileName != _WEIGHTS_REFERENCE:
            raise ArtifactError(f"the weights lie in {value.blobFileValue.fileName!r}, not inside")
        return blobs.array(value.blobFileValue.offset, dtype, shape)
    content = value.immediateValue.tensor
    field = content.WhichOneof("value")
    if dtype == "string" and field == "strings" and len(content.strings.values) == 1:
        return str(content.strings.values[0])
    if dtype == "string" or field in (None, "strings"):
        raise ArtifactError(f"a constant of type {dtype} has no content of that type")
    # Types narrower than the field's own (float16, int8, ...) are stored as raw bytes.
    if field == "bytes" and dtype in PACKED_BITS:
        held = len(content.bytes.values)
        if held != stored_bytes(dtype, math.prod(shape)):
            raise ArtifactError(f"a constant holds {held} bytes for {dtype} {list(shape)}")
        return unpack(content.bytes.values, dtype, shape)
    if field == "bytes":
        whole = len(content.bytes.values) // np.dtype(dtype).itemsize
        array = np.frombuffer(content.bytes.values, dtype, whole)
    else:
        array = np.asarray(getattr(content, field).values).astype(dtype)
    if array.size != math.prod(shape):
        raise ArtifactError(
            f"a constant holds {array.size} elements where {list(shape)} is declared"
        )
    return array.reshape(shape)


def _feature(feature: Any) -> Value:
    from coremltools.proto import FeatureTypes_pb2

    if feature.type.WhichOneof("Type") != "multiArrayType":
        raise ArtifactError(f"{feature.name!r} of the Core ML package is not a multi-array")
    array = feature.type.multiArrayType
    types = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
    known = {types.Value(name): name.lower() for name in ("FLOAT32", "FLOAT16", "INT32")}
    dtype = known.get(array.dataType, "unknown")
    return Value(name=feature.name, dtype=dtype, shape=tuple(int(size) for size in array.shape))
