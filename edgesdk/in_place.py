"""Which operators of an exported program write to memory that is not their own."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx
from torch.export import ExportedProgram


def find_change(program: ExportedProgram) -> tuple[fx.Node, str] | None:
    """Return the first node that writes to a buffer, weight or input, and which one in words.

    None where every write goes to a tensor that the program made itself.
    """
    signature = program.graph_signature
    own = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    for node in program.graph.nodes:
        for written in _aliased(node, is_write=True):
            memory = _memory_of(written)
            if memory.op == "placeholder":
                name = own.get(memory.name)
                return node, f"buffer {name!r}" if name else f"input {memory.name!r}"
    return None


def _memory_of(node: fx.Node) -> fx.Node:
    """Return the node whose memory a node's result is a view of, or is itself."""
    source = next(_aliased(node, is_write=False), None) or next(_aliased(node, is_write=True), None)
    return node if source is None else _memory_of(source)


def _aliased(node: fx.Node, *, is_write: bool) -> Iterator[fx.Node]:
    """Yield the operands that a node writes to, or else those that its result is a view of."""
    schema = getattr(node.target, "_schema", None)
    for formal, actual in zip(schema.arguments, node.args, strict=False) if schema else ():
        alias = formal.alias_info
        if alias is not None and alias.is_write is is_write and isinstance(actual, fx.Node):
            yield actual
