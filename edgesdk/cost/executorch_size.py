"""Bytes of a ``.pte`` for XNNPACK before it is written, from its layout alone.

The graph is cut into payloads as ExecuTorch's partitioner cuts it, each payload gets the nodes and
values that it will hold (conversions between float and int8 and between channels-first and
channels-last included), and every table, name and constant has its place in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgesdk.cost import program_bytes as program
from edgesdk.cost.executorch_memory import is_delegated
from edgesdk.cost.flatbuffer import up
from edgesdk.cost.fusion import INTEGER_BYTES, VIEWS, WEIGHTED, Kernel, fuse
from edgesdk.cost.padding import window
from edgesdk.cost.portable_calls import ATTENTION, portable_bytes
from edgesdk.cost.unrolled import UNROLLED, unrolled
from edgesdk.cost.xnnpack_payload import Payload, ValueType
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import DYNAMIC_SCHEMES, GROUP_SIZE, INT4_SCHEMES, WEIGHT_BYTES, Scheme

Form = tuple[bool, ValueType]
"""How a tensor lies in a payload: whether channels-last, and how it is quantized."""

# XNNPACK's images: these read and write channels-last.
_IMAGE_KINDS = frozenset(
    {
        "adaptive_avg_pool2d", "avg_pool2d", "conv1d", "conv2d", "conv_transpose2d", "max_pool2d",
        "mean", "upsample_bilinear2d",
    }
)  # fmt: skip
# What XNNPACK's quantizer gives scales of its own, and what keeps those of its input.
_QUANTIZED_KINDS = WEIGHTED | {"add", "cat", "mul"}
_SHARING_KINDS = frozenset(
    {
        "adaptive_avg_pool2d", "avg_pool2d", "clamp", "hardtanh", "max_pool2d", "mean", "pad",
        "constant_pad_nd", "permute", "relu", "relu6", "slice", "t", "transpose",
    }
) | VIEWS  # fmt: skip
_POOLS = frozenset({"avg_pool2d", "max_pool2d"})
_NODES: Mapping[str, str] = {
    "linear": "linear", "avg_pool2d": "pool", "max_pool2d": "pool", "permute": "transpose",
    "transpose": "transpose", "t": "transpose", "cat": "concatenation", "slice": "slice",
    "pad": "pad", "constant_pad_nd": "pad", "upsample_bilinear2d": "resize",
}  # fmt: skip
_BINARY = frozenset({"add", "bmm", "div", "matmul", "maximum", "minimum", "mul", "prelu", "sub"})
_COPIES = frozenset({"expand", "expand_as", "squeeze", "unsqueeze"})
"""Views that ExecuTorch's own operators copy."""


def executorch_bytes(
    graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme] = MappingProxyType({})
) -> float:
    """Return the bytes of the ``.pte`` of a graph; ``formats`` names the operators that have
    another scheme than the network."""
    return _Lowering(graph, scheme, formats).size_bytes()


class _Lowering:
    """One pass over the operators: which payload holds them, and what that holds."""

    def __init__(self, graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme]) -> None:
        graph = unrolled(graph)
        self.graph, self.scheme, self.formats = graph, scheme, formats
        self.kernels = {kernel.op.name: kernel for kernel in fuse(graph)}
        self.folded = {name for kernel in self.kernels.values() for name in kernel.folded}
        self.norms = {op.name for op in graph.ops if op.kind == "batch_norm"}
        self.ops = [op for op in graph.ops if op.name not in self.folded]
        self.payload: Payload | None = None
        self.forms: dict[str, set[Form]] = {}  # of the tensors in the open payload
        self.ends = 0
        self.payload_of: dict[str, int] = {}
        self.payloads: list[Payload] = []
        self.crossing = self._crossing()
        self.named: dict[object, list[float]] = {}  # constants of delegates
        self.own: dict[str, float] = {}  # constants of ExecuTorch's operators
        self.calls: set[str] = set()
        self.program = self._program()

    def size_bytes(self) -> float:
        for op in self.ops:
            self._lower(op)
        self._close()
        self.program += sum(map(program.operator_bytes, self.calls))
        constants = [size for sizes in self.named.values() for size in sizes]
        self.program += len(constants) * program.named_bytes()
        segments = [self.program, sum(up(s, program.CONSTANT_ALIGNMENT) for s in self.own.values())]
        segments += [payload.size_bytes for payload in self.payloads]
        segments += constants
        return (
            float(sum(up(size, program.SEGMENT_ALIGNMENT) for size in segments[:-1]))
            + (segments[-1])
        )

    def _program(self) -> float:
        tensors = self.graph.tensors.values()
        ends = [tensor for tensor in tensors if tensor.role in ("input", "output")]
        inputs = sum(tensor.role == "input" for tensor in ends)
        size = program.program_bytes(inputs, len(ends) - inputs)
        if self.scheme == "fp32":  # a batch norm's count of batches stays behind, with no reader
            norms = sum(op.kind == "batch_norm" for op in self.graph.ops)
            size += norms * program.tensor_bytes(0, is_constant=True)
        return size + sum(program.tensor_bytes(len(tensor.shape)) for tensor in ends)

    def _crossing(self) -> set[str]:
        """Return the tensors that a payload has to hand out: outputs, and what is read later."""
        found = {name for name, tensor in self.graph.tensors.items() if tensor.role == "output"}
        made: dict[str, int] = {}
        payload, inside = 0, False
        for op in self.ops:
            delegated = self._is_delegated(op)
            payload += not delegated or not inside or op.kind == ATTENTION
            inside = delegated
            found.update(name for name in op.inputs if made.get(name, payload) != payload)
            made.update(dict.fromkeys(self._outputs(op), payload))
        return found

    def _is_delegated(self, op: Op) -> bool:
        if op.kind in VIEWS:
            return op.kind not in _COPIES
        kernel = self.kernels[op.name]
        return is_delegated(kernel) or op.kind == ATTENTION

    def _outputs(self, op: Op) -> tuple[str, ...]:
        kernel = self.kernels.get(op.name)
        return op.outputs if kernel is None else kernel.outputs

    def _lower(self, op: Op) -> None:
        if not self._is_delegated(op):
            self._portable(op)
            return
        if self.payload is None:
            self._open()
        if op.kind == ATTENTION:
            self._attention(op)
        elif op.kind in WEIGHTED:
            self._weighted(op, self.kernels[op.name])
        elif op.kind in VIEWS:
            self._need(op.inputs[0], (False, self._kept(op)))
            self._result(op, "reshape", (False, self._kept(op)))
        else:
            self._plain(op)
        for name in self._outputs(op):
            if name in self.crossing:
                self._hand_out(name)

    def _open(self) -> None:
        self.payload, self.forms, self.ends = Payload(), {}, 0

    def _close(self) -> None:
        if self.payload is not None and self.payload.nodes:
            self.payloads.append(self.payload)
            self.program += program.delegate_bytes() + program.call_bytes(self.ends)
        self.payload = None

    def _portable(self, op: Op) -> None:
        self._close()
        self.program += portable_bytes(op, self.graph, self.calls)
        for name in op.parameters:
            tensor = self.graph.tensors[name]
            if name not in self.own:
                self.own[name] = tensor.elements * INTEGER_BYTES.get(tensor.dtype, 4)
                self.program += program.tensor_bytes(len(tensor.shape), is_constant=True)
        for name in op.outputs:
            self.program += program.tensor_bytes(self._rank(name))

    def _attention(self, op: Op) -> None:
        """Two products and a softmax in payloads, what makes it safe between them."""
        for name in op.inputs[:3]:
            self._need(name, (False, "float"))
            self._hand_out(name)
        self._close()
        self._open()
        self._nodes(("reshape", "reshape", "reshape", "reshape", "binary", "unary"), ends=3)
        self._close()
        self.program += portable_bytes(op, self.graph, self.calls)
        self._open()
        self._nodes(("reshape", "reshape", "transpose", "transpose", "transpose"), ends=3)
        self._result(op, "binary", (False, "float"))

    def _nodes(self, kinds: tuple[str, ...], *, ends: int) -> None:
        assert self.payload is not None
        for kind in kinds:
            self.payload.node(kind)
            self.payload.value(4)
        for _ in range(ends):
            self.payload.value(4, is_end=True)
            self.program += program.tensor_bytes(4)
        self.ends += ends

    def _weighted(self, op: Op, kernel: Kernel) -> None:
        assert self.payload is not None
        scheme = self._scheme(op)
        image = op.kind != "linear"
        read: ValueType = "tensor" if scheme == "int8" else "float"
        read = "row" if scheme in DYNAMIC_SCHEMES else read
        source = op.inputs[0]
        if op.kind == "conv1d":  # a signal becomes an image of one row, and a signal again
            self._need(source, (False, "tensor" if read == "tensor" else "float"))
            self.payload.node("reshape")
            self.payload.value(4, "tensor" if read == "tensor" else "float")
            self._move(4, read)
        else:
            self._need(source, (image, read))
        weight: ValueType = "float" if scheme == "fp32" else "channel"
        weight = "group" if scheme in INT4_SCHEMES else weight
        self.payload.constant(2 if op.kind == "linear" else 4, weight)
        self.payload.constant(1, "channel" if scheme == "int8" else "float")
        self._store(op, kernel, scheme)
        written: ValueType = "tensor" if scheme == "int8" else "float"
        padded = image and any(window(op)[3])
        self._result(op, "linear" if not image else "convolution", (image, written), padded=padded)
        if op.kind == "conv1d":
            self._move(4, written)
            self.payload.node("reshape", rank=3)
            self.payload.value(3, written)
            for name in kernel.outputs:
                self.forms[name] = {(False, written)}

    def _scheme(self, op: Op) -> Scheme:
        """Return a layer's scheme; torchao leaves an LSTM's steps in float."""
        if op.attributes.get(UNROLLED) and self.scheme in DYNAMIC_SCHEMES:
            return "fp32"
        return self.formats.get(op.name, self.scheme)

    def _move(self, rank: int, form: ValueType) -> None:
        assert self.payload is not None
        self.payload.node("transpose", rank=rank)
        self.payload.value(rank, form)

    def _store(self, op: Op, kernel: Kernel, scheme: Scheme) -> None:
        sizes = [kernel.weights * WEIGHT_BYTES[scheme]]
        if scheme in INT4_SCHEMES:
            sizes.append(kernel.weights / GROUP_SIZE * 2)
        elif scheme != "fp32":
            sizes.append(kernel.channels * 4.0)
        sizes += [kernel.channels * 4.0] * (2 if scheme == "int8" else 1)
        self.named[op.parameters or op.name] = sizes

    def _plain(self, op: Op) -> None:
        assert self.payload is not None
        if op.kind in ("bmm", "matmul"):
            for _ in op.inputs:  # ExecuTorch's own operator expands each before XNNPACK reads it
                self.program += portable_bytes(op, self.graph, self.calls)
        tensors = [name for name in op.inputs if name in self.graph.tensors]
        image = op.kind in _IMAGE_KINDS or (
            op.kind not in ("permute", "t", "transpose", "slice", "softmax")
            and any(held[0] for name in tensors for held in self.forms.get(name, ()))
        )
        form = (image, self._kept(op))
        for name in tensors:
            self._need(name, form)
        if op.kind == "silu":
            self._need(tensors[0], (image, "float"))
            self.payload.node("unary")
            self.payload.value(self._rank(op.outputs[0]))
            if self.scheme == "int8":
                self.payload.node("unary")
                self.payload.value(self._rank(op.outputs[0]), "tensor")
        if op.kind in _BINARY and len(op.inputs) == 1:  # the other operand is a number
            self.payload.constant(1)
            self.named[op.name] = [4.0]
        self._result(op, self._node(op), form, padded=op.kind in _POOLS and any(window(op)[3]))
        if op.kind == "mean" and not op.attributes.get("keepdim"):
            self._move(4, form[1])
            self.payload.node("reshape", rank=2)
            self.payload.value(2, form[1])
            for name in self._outputs(op):
                self.forms[name] = {(False, form[1])}

    def _node(self, op: Op) -> str:
        if op.kind in _BINARY:
            return "binary"
        return "binary" if op.kind == "silu" else _NODES.get(op.kind, "unary")

    def _kept(self, op: Op) -> ValueType:
        """Return how an operator without weights computes: int8 where the network does."""
        if self.scheme != "int8":
            return "float"
        if op.kind in _QUANTIZED_KINDS or op.kind == "silu":
            return "tensor"
        if op.kind not in _SHARING_KINDS:
            return "float"
        held = self.forms.get(op.inputs[0], set())
        return "tensor" if any(form[1] == "tensor" for form in held) else "float"

    def _result(self, op: Op, kind: str, form: Form, *, padded: bool = False) -> None:
        assert self.payload is not None
        kernel = self.kernels.get(op.name)
        outputs = self._outputs(op)
        clamps = kernel is not None and not self.norms.issuperset(kernel.folded)
        rank = 4 if form[0] else self._rank(outputs[0])
        operands = len(op.inputs) if kind == "concatenation" else 0
        self.payload.node(kind, clamps=clamps, padded=padded, operands=operands, rank=rank)
        for name in outputs:
            self.payload.value(rank, form[1])
            self.forms[name] = {form}

    def _need(self, name: str, form: Form) -> None:
        """Have a tensor in the open payload in a form, from what it is there in."""
        assert self.payload is not None
        rank = self._rank(name)
        if name not in self.forms:
            self.forms[name] = {(False, "float")}
            self.payload.value(rank, is_end=True)
            self.ends += 1
        held = self.forms[name]
        if form in held:
            return
        image, wanted = form
        start = next((h for h in sorted(held) if h[1] == wanted), None)
        start = start or next((h for h in sorted(held) if h[0] == image), min(held))
        steps = [(start[0], wanted), form] if wanted == "tensor" else [(image, start[1]), form]
        for step in steps:
            if step in held:
                start = step
            elif step[0] != start[0]:
                self._move(rank, step[1])
            else:
                self.payload.node("unary")
                self.payload.value(rank, step[1])
            held.add(step)
            start = step

    def _hand_out(self, name: str) -> None:
        """Hand a tensor out of the payload: channels first and in float."""
        assert self.payload is not None
        self._need(name, (False, "float"))
        self.payload.ends(1)
        self.ends += 1
        if self.graph.tensors[name].role != "output":
            self.program += program.tensor_bytes(self._rank(name))

    def _rank(self, name: str) -> int:
        return len(self.graph.tensors[name].shape)
