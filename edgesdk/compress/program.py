"""A module's traced graph, run node by node on the module's own weights.

Given a module and inputs of some shape, ``Program`` says which of its layers can be quantized,
where its activations are rounded, and computes what the module computes, one node at a time, so
that values can be observed and replaced on the way.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from edgesdk.export import export_model
from edgesdk.task import Tensors

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
WEIGHTED = (*CONVOLUTIONS, *TRANSPOSED, "linear")
CLAMPS = ("relu", "relu6", "hardtanh", "clamp", "clamp_min")
_PLAIN = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip

Replace = Callable[[fx.Node, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A convolution or linear module whose weight this node alone reads.

    ``axis`` is the weight's dimension of output channels.
    """

    name: str
    node: fx.Node
    axis: int

    @property
    def is_linear(self) -> bool:
        """Whether its channels are the last dimension; those of convolutions are the second."""
        return kind_of(self.node) == "linear"

    def find(self, module: nn.Module) -> Any:
        """Return the layer's module."""
        return module.get_submodule(self.name)


class Program:
    """A module traced at the shapes of ``inputs``; it holds no weights.

    ``layers`` are the plain layers in order; ``weighted`` maps every node with a weight, plain or
    not, to the dimension of its output channels; ``fixed`` are the nodes that depend on no input.
    """

    def __init__(self, module: nn.Module, inputs: Tensors) -> None:
        program = export_model(module, inputs)
        self.graph: fx.Graph = program.graph
        self._owner = program.graph_module
        self._constants = dict(program.constants)
        self._out_spec = program.call_spec.out_spec
        specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self.sources = {node: specs[node.name] for node in self.graph.find_nodes(op="placeholder")}
        self.inputs = [n for n, s in self.sources.items() if s.kind is InputKind.USER_INPUT]
        self.fixed = self._fixed_nodes()
        self.weighted = {node: weight_axis(node) for node in self._weighted_nodes()}
        self.layers = tuple(self._plain_layers(module))
        self._last_use = self._find_last_uses()

    def _fixed_nodes(self) -> set[fx.Node]:
        """Return the nodes that depend on no input."""
        fixed: set[fx.Node] = set()
        for node in self.graph.nodes:
            given = node.op == "get_attr" or (node in self.sources and node not in self.inputs)
            computed = node.op == "call_function" and set(node.all_input_nodes) <= fixed
            if given or computed:
                fixed.add(node)
        return fixed

    def _weighted_nodes(self) -> list[fx.Node]:
        return [
            node
            for node in self.graph.nodes
            if kind_of(node) in WEIGHTED and node not in self.fixed and node.args[1] in self.fixed
        ]

    def _plain_layers(self, module: nn.Module) -> Iterator[Layer]:
        modules = dict(module.named_modules())
        for node, axis in self.weighted.items():
            name, _, parameter = self.parameter(node.args[1]).rpartition(".")
            bias = node.args[2] if len(node.args) > 2 else None
            held = [arg for arg in (node.args[1], bias) if isinstance(arg, fx.Node)]
            own = all(len(arg.users) == 1 for arg in held)
            expected = f"{name}.bias" if bias is not None else ""
            plain = type(modules.get(name)) in _PLAIN and parameter == "weight"
            if plain and own and self.parameter(bias) == expected:
                yield Layer(name=name, node=node, axis=axis)

    def parameter(self, node: Any) -> str:
        """Return the name of the parameter or buffer that a node is, empty for anything else."""
        spec = self.sources.get(node)
        stored = (InputKind.PARAMETER, InputKind.BUFFER)
        return str(spec.target) if spec is not None and spec.kind in stored else ""

    def _find_last_uses(self) -> dict[fx.Node, list[fx.Node]]:
        """Return for every node the values that nothing reads after it."""
        last: dict[fx.Node, fx.Node] = {}
        for node in self.graph.nodes:
            for read in node.all_input_nodes:
                last[read] = node
        uses: dict[fx.Node, list[fx.Node]] = {}
        for read, node in last.items():
            uses.setdefault(node, []).append(read)
        return uses

    def start(
        self, module: nn.Module, inputs: Tensors, *,
        weight: Replace | None = None, result: Replace | None = None,
    ) -> Evaluation:  # fmt: skip
        """Return an evaluation that has run no node yet.

        ``weight`` replaces what a weighted node takes as its weight, ``result`` what any node
        that depends on an input gives.
        """
        return Evaluation(self, module, inputs, weight, result)

    def load(self, node: fx.Node, module: nn.Module, inputs: Tensors) -> Any:
        """Return the value of a placeholder or constant."""
        if node.op == "get_attr":
            return getattr(self._owner, str(node.target))
        spec = self.sources[node]
        if node in self.inputs:
            return inputs[self.inputs.index(node)]
        name = str(spec.target)
        if spec.kind is InputKind.PARAMETER:
            return module.get_parameter(name)
        if spec.kind is InputKind.BUFFER and name not in self._constants:
            return module.get_buffer(name)
        return self._constants[name]

    def forget(self, node: fx.Node, values: dict[fx.Node, Any]) -> None:
        """Drop the values that nothing after ``node`` reads."""
        for read in self._last_use.get(node, ()):
            del values[read]

    def shaped(self, results: Any) -> Any:
        """Return the results in the form that the module's forward gives them."""
        return pytree.tree_unflatten(list(results), self._out_spec)


class Evaluation:
    """One run of a program; ``values`` holds what is still to be read."""

    def __init__(
        self, program: Program, module: nn.Module, inputs: Tensors,
        weight: Replace | None, result: Replace | None,
    ) -> None:  # fmt: skip
        self.program, self.module, self.inputs = program, module, inputs
        self.values: dict[fx.Node, Any] = {}
        self._weight, self._result = weight, result

    def operands(self, node: fx.Node) -> list[Any]:
        """Return the arguments a node would be called with now, its weight replaced."""
        args: list[Any] = list(fx.node.map_arg(node.args, self.values.__getitem__))
        if self._weight is not None and node in self.program.weighted:
            args[1] = self._weight(node, args[1])
        return args

    def step(self, node: fx.Node) -> None:
        """Compute one node; nodes must come in the graph's order."""
        if node.op == "output":
            return
        if node.op == "call_function":
            kwargs = fx.node.map_arg(node.kwargs, self.values.__getitem__)
            value = node.target(*self.operands(node), **kwargs)  # type: ignore[operator]
        else:
            value = self.program.load(node, self.module, self.inputs)
        if self._result is not None and node not in self.program.fixed:
            value = self._result(node, value)
        self.values[node] = value
        self.program.forget(node, self.values)

    def finish(self) -> Any:
        """Compute every node and return what the module's forward would."""
        for node in self.program.graph.nodes:
            self.step(node)
        node = self.program.graph.output_node()
        return self.program.shaped(fx.node.map_arg(node.args[0], self.values.__getitem__))


def kind_of(node: fx.Node) -> str:
    """Return "conv2d" for a call of ``aten.conv2d.padding``, "" for what is no call."""
    if node.op != "call_function":
        return ""
    if node.target is operator.getitem:
        return "getitem"
    return str(node.target).removeprefix("aten.").partition(".")[0].rstrip("_")


def weight_axis(node: fx.Node) -> int:
    """Return the dimension of a weight that holds the node's output channels."""
    return 1 if kind_of(node) in TRANSPOSED else 0


def groups_of(node: fx.Node) -> int:
    """Return the groups of a convolution, 1 for a linear layer."""
    position = 5 if kind_of(node) in TRANSPOSED else 6
    given: Any = 1
    if kind_of(node) != "linear" and len(node.args) > position:
        given = node.args[position]
    return int(given)


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the node that alone reads this one, None where there are more or none."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_function" else None


def is_float(node: fx.Node) -> bool:
    """Return whether a node gives one floating-point tensor."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()
