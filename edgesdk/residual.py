"""Residual blocks: modules that add something to what they read, and can go as a whole.

Given:   x -> [block: y = relu(x + f(x))] -> reader(y)
Result:  x -> reader(x)

What such a block adds is a correction to what is there already, so a network without one still
works to some degree (Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively
Shallow Networks"). A block whose shortcut computes something (another width, another resolution)
cannot go: nothing else makes the shape that its readers expect.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgesdk.cost.fusion import CLAMPS
from edgesdk.graph import Op, OpGraph


@dataclass(frozen=True, kw_only=True)
class ResidualBlock:
    """A module by its path, its operators, the tensor it reads and the one it gives."""

    name: str
    ops: frozenset[str]
    source: str
    result: str

    def has_layer(self, layer: str) -> bool:
        """Return whether a module path lies in the block."""
        return is_within(layer, self.name)


def is_within(layer: str, module: str) -> bool:
    """Return whether a module path is that module's or lies in it."""
    return layer == module or layer.startswith(f"{module}.")


def residual_blocks(graph: OpGraph) -> tuple[ResidualBlock, ...]:
    """Return the modules that structure allows to go, in the order of execution.

    Each reads one tensor and gives one of the same shape and type, along a path on which nothing
    is done but additions and clamps. Blocks do not overlap: of nested ones the inner ones count.
    One that reads the network's input or gives its output stays, so that a network remains.
    """
    found: list[ResidualBlock] = []
    modules = _operators_by_module(graph)
    for name in sorted(modules, key=lambda module: -module.count(".")):
        if any(is_within(block.name, name) for block in found):
            continue
        block = _residual_block(graph, name, modules[name])
        if block is not None:
            found.append(block)
    place = {op.name: index for index, op in enumerate(graph.ops)}
    return tuple(sorted(found, key=lambda block: min(place[op] for op in block.ops)))


def without_blocks(graph: OpGraph, blocks: Collection[ResidualBlock]) -> OpGraph:
    """Return the graph whose blocks' readers read what the blocks read."""
    gone = frozenset[str]().union(*(block.ops for block in blocks))
    source = {block.result: block.source for block in blocks}

    def read(name: str) -> str:
        while name in source:
            name = source[name]
        return name

    ops = tuple(
        replace(op, inputs=tuple(dict.fromkeys(map(read, op.inputs))))
        for op in graph.ops
        if op.name not in gone
    )
    used = {name for op in ops for name in (*op.inputs, *op.parameters, *op.outputs)}
    tensors = {n: t for n, t in graph.tensors.items() if n in used or t.role == "input"}
    return OpGraph(model=graph.model, ops=ops, tensors=tensors)


def computes_alike(graph: OpGraph, other: OpGraph) -> bool:
    """Return whether two graphs are the same but for the names of operators and tensors."""
    if len(graph.ops) != len(other.ops):
        return False
    named: dict[str, str] = {}
    for one, two in zip(graph.ops, other.ops, strict=True):
        tensors = (one.inputs, one.parameters, one.outputs)
        others = (two.inputs, two.parameters, two.outputs)
        if (one.kind, one.layer, one.macs, one.attributes, [*map(len, tensors)]) != (
            two.kind, two.layer, two.macs, two.attributes, [*map(len, others)],
        ):  # fmt: skip
            return False
        for mine, its in zip(sum(tensors, ()), sum(others, ()), strict=True):
            same = replace(graph.tensors[mine], name=its) == other.tensors[its]
            if named.setdefault(mine, its) != its or not same:
                return False
    return True


def _operators_by_module(graph: OpGraph) -> Mapping[str, list[Op]]:
    """Return the operators of every module that has some, those of its own modules included."""
    found: dict[str, list[Op]] = {}
    for op in graph.ops:
        for module in _modules_around(op.layer):
            found.setdefault(module, []).append(op)
    return found


def _modules_around(layer: str) -> Iterator[str]:
    """Yield "a.b.c", "a.b" and "a"; not the network itself."""
    while layer:
        yield layer
        layer = layer.rpartition(".")[0]


def _residual_block(graph: OpGraph, name: str, ops: Sequence[Op]) -> ResidualBlock | None:
    made = {output for op in ops for output in op.outputs}
    read = {tensor for op in ops for tensor in op.inputs if tensor not in made}
    own = {op.name for op in ops}
    given = made & {n for op in graph.ops if op.name not in own for n in op.inputs}
    given |= {output for output in made if graph.tensors[output].role == "output"}
    if len(read) != 1 or len(given) != 1:
        return None
    source, result = graph.tensors[read.pop()], graph.tensors[given.pop()]
    alike = (source.shape, source.dtype) == (result.shape, result.dtype)
    if not alike or source.role == "input" or result.role == "output":
        return None
    producers = {output: op for op in ops for output in op.outputs}
    if not _skips(result.name, source.name, producers, added=False):
        return None
    return ResidualBlock(name=name, ops=frozenset(own), source=source.name, result=result.name)


def _skips(name: str, source: str, producers: Mapping[str, Op], *, added: bool) -> bool:
    """Return whether a tensor is another one plus something, clamped or not."""
    if name == source:
        return added
    op = producers.get(name)
    if op is None:
        return False
    if op.kind in CLAMPS:
        return _skips(op.inputs[0], source, producers, added=added)
    # Two tensors that both depend on the input: a bias, or a tensor added to itself, is no branch.
    if op.kind != "add" or len(op.inputs) != 2 or op.attributes.get("alpha", 1) != 1:
        return False
    return any(_skips(each, source, producers, added=True) for each in op.inputs)
