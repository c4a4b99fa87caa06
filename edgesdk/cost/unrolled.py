"""LSTMs as the steps that ExecuTorch's, Core ML's and LiteRT's converters make of them.

None of the three keeps the operator: every step of the sequence becomes operators of its own, so
that a short recurrent network is a large file.
"""

from __future__ import annotations

from dataclasses import replace

from edgesdk.graph import Op, OpGraph, TensorInfo

_GATES = 4
UNROLLED = "unrolled"
"""Marks the operators that an LSTM was made of."""


def unrolled(graph: OpGraph) -> OpGraph:
    """Return the graph with each LSTM as its steps; the graph itself where it has none.

    Given   lstm [N, L, C] -> [N, L, H]
    Result  linear of all steps, split; for each step linear, add, split into gates, their
            activations, products and sums; cat, transpose
    """
    if not any(op.kind == "lstm" for op in graph.ops):
        return graph
    tensors = dict(graph.tensors)
    ops: list[Op] = []
    for op in graph.ops:
        ops += _Steps(op, tensors).ops() if op.kind == "lstm" else [op]
    return replace(graph, ops=tuple(ops), tensors=tensors)


class _Steps:
    """The steps of one LSTM of any layers, in one or both directions."""

    def __init__(self, op: Op, tensors: dict[str, TensorInfo]) -> None:
        self.op, self.tensors, self.found = op, tensors, list[Op]()
        weights = [name for name in op.parameters if "weight" in name]
        biases = [name for name in op.parameters if "bias" in name]
        self.layers = list(zip(weights[::2], weights[1::2], strict=True))
        self.biases = list(zip(biases[::2], biases[1::2], strict=True))
        first = bool(op.attributes.get("batch_first"))
        shape = tensors[op.inputs[0]].shape
        self.batch, self.steps = (shape[0], shape[1]) if first else (shape[1], shape[0])

    def ops(self) -> list[Op]:
        directions = 2 if self.op.attributes.get("bidirectional") else 1
        source = self._add("transpose", [self.op.inputs[0]], self._turned())
        for index in range(0, len(self.layers), directions):
            ends = [self._direction(source, at) for at in range(index, index + directions)]
            width = directions * self.tensors[ends[0]].shape[-1]
            shape = (self.steps, self.batch, width)
            source = ends[0] if directions == 1 else self._add("cat", ends, shape)
        last = self.found[-1]
        self._add("transpose", [last.outputs[0]], self.tensors[self.op.outputs[0]].shape)
        self.found[-1] = replace(self.found[-1], outputs=self.op.outputs)
        return self.found

    def _turned(self) -> tuple[int, ...]:
        return (self.steps, self.batch, self.tensors[self.op.inputs[0]].shape[-1])

    def _direction(self, source: str, at: int) -> str:
        inner, outer = self.layers[at]
        biases = self.biases[at] if self.biases else ("", "")
        gates = self.tensors[outer].shape[0]
        width, batch = gates // _GATES, self.batch
        whole, one = (1, batch, gates), (1, batch, width)
        given = self._weighted(source, inner, biases[0], (self.steps, batch, gates))
        parts = self._split(given, self.steps, (1, batch, gates))
        hidden, cell, states = "", "", []
        for part in parts:
            total = self._add("squeeze", [part], (batch, gates))
            if hidden:
                seen = self._weighted(hidden, outer, biases[1], whole)
                total = self._add("add", [total, seen], whole)
            opened = self._split(total, _GATES, one)
            kinds = ("sigmoid", "sigmoid", "tanh", "sigmoid")
            reads, keeps, new, shows = (
                self._add(kind, [gate], one) for kind, gate in zip(kinds, opened, strict=True)
            )
            fresh = self._add("mul", [reads, new], one)
            kept = self._add("mul", [keeps, cell or reads], one)
            cell = self._add("add", [kept, fresh], one)
            hidden = self._add("mul", [shows, self._add("tanh", [cell], one)], one)
            states.append(hidden)
        return self._add("cat", states, (self.steps, batch, width))

    def _weighted(self, source: str, weight: str, bias: str, shape: tuple[int, ...]) -> str:
        parameters = (weight, bias) if bias else (weight,)
        return self._add("linear", [source], shape, parameters=parameters)

    def _split(self, source: str, count: int, shape: tuple[int, ...]) -> list[str]:
        name = self._add("chunk", [source], shape)
        more = [f"{name}:{index}" for index in range(1, count)]
        for other in more:
            self._tensor(other, shape)
        self.found[-1] = replace(self.found[-1], outputs=(name, *more))
        return [name, *more]

    def _add(
        self, kind: str, inputs: list[str], shape: tuple[int, ...], *,
        parameters: tuple[str, ...] = (),
    ) -> str:  # fmt: skip
        name = f"{self.op.name}/{len(self.found)}"
        self._tensor(name, shape)
        op = Op(
            name=name, kind=kind, inputs=tuple(inputs), parameters=parameters, outputs=(name,),
            macs=0, layer=self.op.layer, attributes={UNROLLED: True},
        )  # fmt: skip
        self.found.append(op)
        return name

    def _tensor(self, name: str, shape: tuple[int, ...]) -> None:
        self.tensors[name] = TensorInfo(name=name, shape=shape, dtype="float32", role="activation")
