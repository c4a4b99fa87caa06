"""Trace a model: ``torch.export`` into an ``OpGraph``, from a module or from a saved graph.

Both come as one list of nodes, a node for each ATen call of ``torch.export``'s training IR, where
a linear layer, a convolution, a batch norm, an attention or an LSTM is one call. Then:

- calls that compute nothing at inference (dropout in eval mode, ``contiguous``, a cast to the
  same type, assertions) disappear;
- calls that depend on no input are folded, as converters do: their result is a parameter;
- ``kind`` is the ATen name without overload and trailing underscore (``relu_`` is ``relu``);
- an operator with several results has the outputs ``name:0``, ``name:1``, ...

MACs are counted by the rules of ``edgesdk.macs``; what has no rule there counts zero
(elementwise operators, pooling, normalisation, data movement, custom operators).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from edgesdk.document import from_builtins
from edgesdk.errors import ProfileError, UnsupportedModel
from edgesdk.export import export_model, layer_of, origin_of
from edgesdk.foreign import Foreign
from edgesdk.graph import Attribute, Op, OpGraph, TensorInfo, TensorRole
from edgesdk.macs import count_macs
from edgesdk.task import Tensors

_STRICT = ConfigDict(extra="forbid")
_DEEPEST_ARGUMENT = 8
_GETITEM = "<built-in function getitem>"


@dataclass(frozen=True)
class NodeValue:
    """Shape and element type ("float32", ...) of a tensor that a node returns."""

    __pydantic_config__ = _STRICT

    shape: tuple[int, ...]
    dtype: str


Values = NodeValue | list[NodeValue | None] | None


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of an exported graph. In ``args`` another node is ``{"ref": its name}``."""

    __pydantic_config__ = _STRICT

    name: str
    kind: Literal["placeholder", "get_attr", "call_function", "output"]
    role: Literal["input", "parameter"] | None = None
    target: str = ""
    args: list[Any] = field(default_factory=list)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    value: Values = None
    layer: str = ""


@dataclass(frozen=True, kw_only=True)
class GraphFile:
    """A saved graph: its nodes in execution order and the number of trained weights."""

    __pydantic_config__ = _STRICT

    model: str
    parameters: int
    nodes: list[Node]


def trace(module: nn.Module, example_inputs: Tensors, *, name: str) -> OpGraph:
    """Return what the module computes on inputs of these shapes, in eval mode.

    Parameters are named as in ``state_dict``. Raises what ``export_model`` raises, and
    ``UnsupportedModel`` for control flow inside the graph or shapes that depend on data. A foreign
    network's graph is that of the file which its own converter makes.
    """
    if isinstance(module, Foreign):
        return module.graph(example_inputs, name)
    return _build(_exported_nodes(export_model(module, example_inputs)), name)


def graph_from_json(data: Mapping[str, Any], *, name: str) -> OpGraph:
    """Return the graph of a saved file (``model``, ``parameters``, ``nodes``; no weights).

    Layers are unknown there (empty), and so is what a ``wrap_with_autocast`` computes: it counts
    no MACs. Raises ``ProfileError`` for anything that is not such a file.
    """
    file = from_builtins(GraphFile, data, what=f"graph {name}", error=ProfileError)
    return _build(file.nodes, name)


def graph_to_json(program: ExportedProgram, *, name: str) -> dict[str, Any]:
    """Return an exported model as the file that ``graph_from_json`` reads; no weights."""
    nodes = [
        {key: value for key, value in asdict(replace(node, layer="")).items() if value}
        for node in _exported_nodes(program)
    ]
    parameters = sum(parameter.numel() for parameter in program.parameters())
    return {"model": name, "parameters": parameters, "nodes": nodes}


def _exported_nodes(program: ExportedProgram) -> list[Node]:
    """Return the nodes of a program, the bodies of ``no_grad`` and ``autocast`` blocks inlined."""
    nodes: list[Node] = []
    refs: dict[fx.Node, Any] = {}
    taken = {node.name for node in program.graph.nodes}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.find_nodes(op="placeholder"):
        is_input = specs[node.name].kind is InputKind.USER_INPUT
        target = str(specs[node.name].target)
        name = node.name if is_input or target in taken else target
        role: Literal["input", "parameter"] = "input" if is_input else "parameter"
        nodes.append(Node(name=name, kind="placeholder", role=role, value=_value(node)))
        refs[node] = {"ref": name}
    results = _inline(program.graph_module, refs, nodes, prefix="")
    return [*nodes, Node(name="output", kind="output", args=[results])]


def _inline(
    module: nn.Module, refs: dict[fx.Node, Any], nodes: list[Node], prefix: str
) -> list[Any]:
    """Append a graph module's calls to ``nodes``, return its results; ``refs`` holds its inputs."""
    graph: fx.Graph = module.graph  # type: ignore[assignment]
    for node in (node for node in graph.nodes if node.op == "call_function"):
        bodies = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.op == "get_attr"]
        if not bodies:
            refs[node] = {"ref": prefix + node.name}
            nodes.append(_call_node(node, refs, prefix))
            continue
        if not str(node.target).startswith("wrap_with_"):
            raise UnsupportedModel(
                f"{node.target}, control flow inside the graph, is used in{origin_of(node)}",
                expected="a graph whose operators all run exactly once",
                next_step="choose with torch.where, or unroll the loop",
            )
        body = module.get_submodule(str(bodies[0].target))
        operands = node.args[node.args.index(bodies[0]) + 1 :]
        inputs = body.graph.find_nodes(op="placeholder")  # type: ignore[operator, union-attr]
        inner = {p: _plain(operand, refs) for p, operand in zip(inputs, operands, strict=True)}
        refs[node] = _inline(body, inner, nodes, prefix=f"{prefix}{node.name}/")
    results: list[Any] = _plain(graph.output_node().args[0], refs)
    return results


def _call_node(node: fx.Node, refs: Mapping[fx.Node, Any], prefix: str) -> Node:
    return Node(
        name=prefix + node.name,
        kind="call_function",
        target=str(node.target),
        args=_plain(node.args, refs),
        kwargs={key: _plain(arg, refs) for key, arg in node.kwargs.items()},
        value=_value(node),
        layer=layer_of(node),
    )


def _plain(value: Any, refs: Mapping[fx.Node, Any]) -> Any:
    """Return an fx argument as a saved graph holds it: references, lists and plain values."""
    if isinstance(value, fx.Node):
        return refs[value]
    if isinstance(value, list | tuple):
        return [_plain(item, refs) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _value(node: fx.Node) -> Values:
    def described(value: Any) -> NodeValue | None:
        if value is None:
            return None
        if isinstance(value, Tensor) and all(isinstance(size, int) for size in value.shape):
            return NodeValue(tuple(value.shape), str(value.dtype).removeprefix("torch."))
        raise UnsupportedModel(
            f"the result of {node.target} has a size that depends on data in{origin_of(node)}",
            expected="operators whose output shapes follow from the input shapes",
            next_step="replace it by an operator with a fixed output shape, such as torch.where",
        )

    value = node.meta.get("val")
    return [described(v) for v in value] if isinstance(value, tuple | list) else described(value)


def _build(nodes: list[Node], model: str) -> OpGraph:
    """Return the operators of the nodes; ``ProfileError`` where they do not fit together."""
    building = _Building(model=model)
    for node in nodes:
        if node.name in building.results:
            raise building.defect(node, "is there twice")
        if node.kind == "output":
            return building.finish(node)
        building.results[node.name] = building.add(node)
    raise ProfileError(f"graph {model!r} has no output node")


@dataclass(kw_only=True)
class _Building:
    """The graph so far; ``results`` maps every node to the tensors it returns."""

    model: str
    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)

    def defect(self, node: Node, what: str) -> ProfileError:
        return ProfileError(f"graph {self.model!r}: node {node.name!r} {what}")

    def refs(self, node: Node, value: Any, depth: int = 0) -> list[str]:
        """Return the tensors that an argument refers to, in order."""
        if depth > _DEEPEST_ARGUMENT:
            raise self.defect(node, f"has arguments nested deeper than {_DEEPEST_ARGUMENT}")
        if isinstance(value, list):
            return [name for item in value for name in self.refs(node, item, depth + 1)]
        if not isinstance(value, dict):
            return []
        ref = value.get("ref")
        if isinstance(ref, str) and ref in self.results:
            return self.results[ref]
        raise self.defect(node, f"refers to {value!r}, which is not an earlier node")

    def add(self, node: Node) -> list[str]:
        """Add a placeholder or call and return the tensors it results in."""
        values = node.value if isinstance(node.value, list) else [node.value]
        if any(value and min(value.shape, default=0) < 0 for value in values):
            raise self.defect(node, "has a negative size")
        if node.kind == "placeholder":
            if node.role is None or not isinstance(node.value, NodeValue):
                raise self.defect(node, "is a placeholder without role or shape")
            return [self.add_tensor(node.name, node.value, node.role)]
        if node.kind == "get_attr":  # the body of a block, which a saved graph does not hold
            return []
        operands = self.refs(node, [node.args, list(node.kwargs.values())])
        if node.target == _GETITEM:
            index = node.args[-1] if node.args else None
            if not isinstance(index, int) or not 0 <= index < len(operands):
                raise self.defect(node, f"takes item {index!r} of {len(operands)} tensors")
            return [operands[index]]
        call = _Call(node=node, arguments=_bind(node), building=self)
        if operands and call.is_identity(self.tensors[operands[0]]):
            return operands[:1]
        fixed = all(self.tensors[name].role == "parameter" for name in operands)
        role: TensorRole = "parameter" if fixed else "activation"
        several = isinstance(node.value, list)
        outputs = [
            self.add_tensor(f"{node.name}:{index}" if several else node.name, value, role)
            for index, value in enumerate(values)
            if value is not None
        ]
        if outputs:
            op = self.op(node, call, operands, outputs)
            self.ops += [] if fixed else [op]
        return outputs

    def add_tensor(self, name: str, value: NodeValue, role: TensorRole) -> str:
        self.tensors[name] = TensorInfo(name=name, shape=value.shape, dtype=value.dtype, role=role)
        return name

    def op(self, node: Node, call: _Call, operands: list[str], outputs: list[str]) -> Op:
        fixed = {name: self.tensors[name].role == "parameter" for name in operands}
        return Op(
            name=node.name,
            kind=call.kind,
            inputs=tuple(name for name in fixed if not fixed[name]),
            parameters=tuple(name for name in fixed if fixed[name]),
            outputs=tuple(outputs),
            macs=count_macs(call.kind, call),
            layer=node.layer,
            attributes=call.attributes(),
        )

    def finish(self, node: Node) -> OpGraph:
        """Return the graph without unused parameters; ``node`` names what the model returns."""
        for name in self.refs(node, node.args):
            if self.tensors[name].role == "activation":
                self.tensors[name] = replace(self.tensors[name], role="output")
        used = {n for op in self.ops for n in (*op.inputs, *op.parameters, *op.outputs)}
        tensors = {n: t for n, t in self.tensors.items() if n in used or t.role == "input"}
        return OpGraph(model=self.model, ops=tuple(self.ops), tensors=tensors)


def _bind(node: Node) -> dict[str, Any]:
    """Return the call's arguments by name, defaults included; empty for unknown operators."""
    namespace, _, rest = node.target.partition(".")
    operator, _, overload = rest.partition(".")
    try:
        schema = torch._C._get_schema(
            f"{namespace}::{operator}", "" if overload == "default" else overload
        )
    except RuntimeError:
        return {}
    bound = {a.name: a.default_value for a in schema.arguments}
    bound.update(zip(bound, node.args, strict=False))
    return {**bound, **node.kwargs}


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call with its arguments by name."""

    node: Node
    arguments: Mapping[str, Any]
    building: _Building

    @property
    def kind(self) -> str:
        name = self.node.target.removeprefix("aten.").rpartition(".")[0] or self.node.target
        return name.strip("_")

    def is_identity(self, first: TensorInfo) -> bool:
        """True for calls that an inference does not execute."""
        if self.kind in _CASTS and isinstance(self.node.value, NodeValue):
            return self.node.value == NodeValue(first.shape, first.dtype)
        return self.kind in _IDENTITIES and self.arguments.get("train") is not True

    def shapes(self, argument: str, rank: int = 1) -> list[tuple[int, ...]]:
        """Return the shapes of the tensors given there, one at least, of at least that rank."""
        names = self.building.refs(self.node, self.arguments.get(argument))
        shapes = [self.building.tensors[name].shape for name in names]
        if not shapes or min(map(len, shapes)) < rank:
            what = (
                f"({self.kind}) has {argument!r} of shapes {shapes}, expected rank {rank} or more"
            )
            raise self.building.defect(self.node, what)
        return shapes

    def size(self, argument: str, rank: int = 1) -> tuple[int, ...]:
        return self.shapes(argument, rank)[0]

    def results(self) -> int:
        """Return the number of elements of the (first) result."""
        values = self.node.value if isinstance(self.node.value, list) else [self.node.value]
        return math.prod(values[0].shape) if values[0] else 0

    def attributes(self) -> dict[str, Attribute]:
        """Return the arguments that are not tensors, and the kernel size of convolutions."""
        found: dict[str, Attribute] = {}
        for name, value in self.arguments.items():
            if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
                found[name] = tuple(int(item) for item in value)
            elif isinstance(value, float) and not math.isfinite(value):
                found[name] = str(value)  # JSON has no infinity
            elif isinstance(value, bool | int | float | str) and name not in _PLACEMENT:
                found[name] = value
        if self.kind.startswith("conv"):
            found["kernel_size"] = self.size("weight", rank=2)[2:]
        elif "kernel_size" in found and "stride" in self.arguments:
            found.setdefault("stride", found["kernel_size"])  # torch's empty list means the kernel
        return found


_IDENTITIES = {
    "alias", "alpha_dropout", "clone", "contiguous", "detach", "dropout", "feature_alpha_dropout",
    "feature_dropout", "lift_fresh", "lift_fresh_copy",
}  # fmt: skip
_CASTS = {"to", "to_copy", "type_as"}
_PLACEMENT = {"device", "layout", "memory_format", "non_blocking", "pin_memory"}
