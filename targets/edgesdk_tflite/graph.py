"""A ``.tflite`` file as an ``OpGraph``: what the cost model reads of files that others made.

- Operators have the plain kinds of a traced model; those without one keep the file's name in small
  letters, and are then priced as operators that nobody has checked.
- What the file fuses stays fused: a convolution has the attribute ``activation`` instead of a ReLU
  behind it. QUANTIZE and DEQUANTIZE are operators like all others.
- Images are [N, C, H, W] as in PyTorch and kernels [out, in / groups, kh, kw]; the file has them
  channels-last. An operator that computes on constants only is folded into its result.
- ``attributes["operator"]`` is the file's own name, ``attributes["scales"]`` the number of scales
  of a quantized kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import ArtifactError, UnsupportedModel
from edgesdk.graph import Attribute, Op, OpGraph, TensorInfo, TensorRole
from edgesdk.macs import count_macs
from edgesdk_tflite.flatbuffer import FileOperator, FileTensor, ModelFile, read_model
from edgesdk_tflite.image_layout import find_images
from edgesdk_tflite.kinds import ACTIVATIONS, CONTROL_FLOW, KINDS, WINDOWED

Shape = tuple[int, ...]

# Where an operator has its kernel, from the file's axes to PyTorch's.
_KERNEL_AXES: Mapping[str, tuple[int, Shape]] = {
    "CONV_2D": (1, (0, 3, 1, 2)),
    "DEPTHWISE_CONV_2D": (1, (3, 0, 1, 2)),
    "TRANSPOSE_CONV": (1, (3, 0, 1, 2)),
    "CONV_3D": (1, (4, 3, 0, 1, 2)),
}
_IMAGE_INPUT = {"TRANSPOSE_CONV": 2}
# Constants of these types are an operator's arguments (axes, sizes), unless they are a bias.
_ARGUMENT_TYPES = frozenset({"int32", "int64", "bool"})
_BIAS_INPUT = {
    "CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3, "CONV_3D": 2,
}  # fmt: skip
_PADDINGS = ("same", "valid")


def read_graph(path: Path) -> OpGraph:
    """Return what a ``.tflite`` file computes, at the batch that its tensors are written for.

    Raises ``ArtifactError`` for a file that cannot be read and ``UnsupportedModel`` for one with
    several subgraphs, control flow, sizes left open until it runs, or state between inferences.
    """
    file = read_model(path)
    _require_plain(file, path.name)
    return _Reading(file=file, model=path.name).graph()


def _require_plain(file: ModelFile, name: str) -> None:
    for op in file.operators:
        if op.name in CONTROL_FLOW:
            raise UnsupportedModel(
                f"{name} holds {op.name}: which operators run depends on data",
                expected="a graph whose operators all run exactly once",
                details={"operator": op.name},
            )
        tensors = [t for t in (*op.inputs, *op.outputs) if t is not None]
        for tensor in tensors:
            if tensor.is_variable:
                raise UnsupportedModel(
                    f"{name} keeps {tensor.name!r} from one inference to the next ({op.name})",
                    expected="a graph without state",
                    details={"operator": op.name},
                )
            if tensor.is_dynamic or (tensor.data is None and min(tensor.shape, default=1) < 1):
                raise UnsupportedModel(
                    f"{name} leaves the shape of {tensor.name!r} open ({op.name})",
                    expected="fixed shapes (the batch may be open, and counts as written)",
                    next_step="convert the model again with fixed input shapes",
                    details={"operator": op.name},
                )
    if file.subgraphs != 1:
        raise UnsupportedModel(
            f"{name} has {file.subgraphs} subgraphs", expected="a single one, without control flow"
        )


class _Reading:
    """The graph so far, and the names and layouts that hold for all of it."""

    def __init__(self, file: ModelFile, model: str) -> None:
        self.file = file
        self.model = model
        self.images = find_images(file.operators)
        self.tensors: dict[str, TensorInfo] = {}
        self.names: dict[int, str] = {}
        self.uses: Counter[str] = Counter()

    def graph(self) -> OpGraph:
        for tensor in self.file.inputs.values():
            self.activation(tensor, "input")
        computed = [op for op in self.file.operators if self.is_computed(op)]
        ops = tuple(self.op(position, op) for position, op in enumerate(computed))
        for tensor in self.file.outputs.values():
            if self.tensors[self.name(tensor)].role == "activation":
                self.activation(tensor, "output")
        return OpGraph(model=self.model, ops=ops, tensors=self.tensors)

    def is_computed(self, op: FileOperator) -> bool:
        return bool(op.outputs) and self.file.constant(op.outputs[0]) is None

    def name(self, tensor: FileTensor) -> str:
        """Return the tensor's name; the second of one name has its index behind it."""
        if tensor.index not in self.names:
            name = tensor.name or "tensor"
            self.uses[name] += 1
            taken = self.uses[name] > 1 or not tensor.name
            self.names[tensor.index] = f"{name};{tensor.index}" if taken else name
        return self.names[tensor.index]

    def activation(self, tensor: FileTensor, role: TensorRole) -> str:
        name = self.name(tensor)
        shape = tensor.shape
        if tensor.index in self.images:
            shape = (shape[0], shape[3], *shape[1:3])
        self.tensors[name] = TensorInfo(name=name, shape=shape, dtype=tensor.dtype, role=role)
        return name

    def parameter(self, tensor: FileTensor, shape: Shape) -> str:
        name = self.name(tensor)
        dtype = tensor.dtype
        self.tensors[name] = TensorInfo(name=name, shape=shape, dtype=dtype, role="parameter")
        return name

    def op(self, position: int, op: FileOperator) -> Op:
        outputs = tuple(self.activation(tensor, "activation") for tensor in op.outputs)
        kernel = _kernel_shape(op, position)
        inputs, parameters = [], []
        workspace = {tensor.key for tensor in op.workspace}
        for index, tensor in enumerate(op.inputs):
            constant = self.file.constant(tensor)
            if tensor is None or tensor.key in workspace:
                continue
            if constant is None:
                inputs.append(self.name(tensor))
            elif constant.dtype not in _ARGUMENT_TYPES or index == _BIAS_INPUT.get(op.name):
                at_kernel = op.name in _KERNEL_AXES and index == _KERNEL_AXES[op.name][0]
                shape = kernel if at_kernel else constant.shape
                parameters.append(self.parameter(constant, shape))
        kind = "embedding" if op.name == "GATHER" and parameters else KINDS.get(op.name)
        kind = kind or op.name.lower()
        return Op(
            name=outputs[0],
            kind=kind,
            inputs=tuple(dict.fromkeys(inputs)),
            parameters=tuple(dict.fromkeys(parameters)),
            outputs=outputs,
            macs=count_macs(kind, self.call(op, outputs, kernel)),
            layer=op.outputs[0].name,
            attributes=_attributes(op, kernel, position),
        )

    def call(self, op: FileOperator, outputs: tuple[str, ...], kernel: Shape) -> _FileCall:
        arguments: dict[str, Any] = {}
        if kernel:
            image = op.inputs[_IMAGE_INPUT.get(op.name, 0)]
            arguments = {"input": image.shape if image else (), "weight": kernel}
        elif op.name == "FULLY_CONNECTED":
            # It flattens what it reads to rows as long as the kernel's.
            arguments = {"input": _operand(op, 1, 2).shape}
        elif op.name == "BATCH_MATMUL":
            rows = _operand(op, 0, 2).shape
            arguments = {"self": (*rows[:-2], *rows[:-3:-1]) if op.options.get("adjX") else rows}
        elif op.name in ("UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"):
            shapes = [t.shape for t in op.inputs if t is not None]
            arguments = {"input": shapes[0] if shapes else (), "params": shapes[1:]}
        return _FileCall(arguments=arguments, elements=self.tensors[outputs[0]].elements)


@dataclass(frozen=True, kw_only=True)
class _FileCall:
    """What the rules of ``edgesdk.macs`` ask of an operator; ``arguments`` are shapes."""

    arguments: Mapping[str, Any]
    elements: int

    def results(self) -> int:
        return self.elements

    def size(self, argument: str, rank: int = 1) -> Shape:
        return self.shapes(argument, rank)[0]

    def shapes(self, argument: str, rank: int = 1) -> list[Shape]:
        found = self.arguments[argument]
        return found if isinstance(found, list) else [found]


def _kernel_shape(op: FileOperator, position: int) -> Shape:
    """Return a convolution's kernel in PyTorch's order, () for all other operators."""
    if op.name not in _KERNEL_AXES:
        return ()
    index, axes = _KERNEL_AXES[op.name]
    shape = _operand(op, index, len(axes)).shape
    if op.name == "DEPTHWISE_CONV_2D" and shape[0] != 1:
        raise ArtifactError(f"operator {position} has a depthwise kernel of shape {list(shape)}")
    return tuple(shape[axis] for axis in axes)


def _operand(op: FileOperator, index: int, rank: int) -> FileTensor:
    tensor = op.inputs[index] if index < len(op.inputs) else None
    if tensor is None or not (len(tensor.shape) == rank or len(tensor.shape) > rank == 2):
        found = "nothing" if tensor is None else f"shape {list(tensor.shape)}"
        raise ArtifactError(
            f"{op.name} has {found} as its input {index}", expected=f"{rank} dimensions"
        )
    return tensor


def _attributes(op: FileOperator, kernel: Shape, position: int) -> dict[str, Attribute]:
    options = op.options
    found: dict[str, Attribute] = {"operator": op.name}
    activation = ACTIVATIONS.get(int(options.get("fusedActivationFunction", 0)))
    if activation:
        found["activation"] = activation
    if op.name in WINDOWED:
        found |= _window(op, kernel, position)
    if kernel or op.name == "FULLY_CONNECTED":
        weight = op.inputs[1]
        found["scales"] = len(weight.scales) if weight else 0
    if op.name == "BATCH_MATMUL":
        found |= {"adj_x": bool(options.get("adjX")), "adj_y": bool(options.get("adjY"))}
    return found


def _window(op: FileOperator, kernel: Shape, position: int) -> dict[str, Attribute]:
    """Return kernel, stride, dilation, padding and groups, rows before columns as in PyTorch."""
    options = op.options
    depth = [_size(options, "strideD", position)] if len(kernel) == 5 else []
    stride = (*depth, _size(options, "strideH", position), _size(options, "strideW", position))
    found: dict[str, Attribute] = {
        "stride": stride,
        "padding": _PADDINGS[1 if options.get("padding") == 1 else 0],
    }
    if not kernel:
        sizes = tuple(_size(options, f"filter{axis}", position) for axis in ("Height", "Width"))
        return {**found, "kernel_size": sizes}
    dilated = [f"dilation{axis}Factor" for axis in "DHW"[-len(stride) :]]
    dilation = tuple(int(options.get(name, 1)) for name in dilated)
    image = op.inputs[_IMAGE_INPUT.get(op.name, 0)]
    channels = image.shape[-1] if image and image.shape else kernel[1]
    groups = 1 if op.name == "TRANSPOSE_CONV" else max(channels // kernel[1], 1)
    return {**found, "kernel_size": kernel[2:], "dilation": dilation, "groups": groups}


def _size(options: Mapping[str, float], name: str, position: int) -> int:
    size = int(options.get(name, 0))
    if size < 1:
        raise ArtifactError(f"operator {position} has {name} {size}", expected="at least 1")
    return size
