"""A ``.pte`` read back: every operator, who runs it, in which type and with which weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.artifact import OpCount, inside
from edgesdk.errors import ArtifactError
from edgesdk_executorch.delegates import delegate_of
from edgesdk_executorch.node import Node

# Which argument of a kernel is its filter.
_WEIGHT_ARGUMENT = {"aten::convolution.out": 1, "aten::linear.out": 1}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of the program."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Program:
    """The method ``forward`` of a ``.pte``.

    ``planned_bytes`` is what the file tells the runtime to allocate for the tensors outside
    delegates; a delegate's own workspace comes on top and is nowhere stated. ``delegate_calls``
    are the positions of calls of a delegate among the instructions, in order.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    planned_bytes: int
    delegate_calls: tuple[int, ...]


def read_program(folder: Path, name: str) -> Program:
    """Return what the ``.pte`` of that name holds; ``ArtifactError`` if it cannot be read."""
    from executorch.exir._serialize import _deserialize_pte_binary

    path = inside(folder, name)
    try:
        file = _deserialize_pte_binary(path.read_bytes())
        plans = {plan.name: plan for plan in file.program.execution_plan}
        return _read_plan(file.program, plans["forward"])
    except ArtifactError:
        raise
    except Exception as problem:
        # Whatever the parser trips over in bytes that are not a program: index, memory, decoding.
        raise ArtifactError(
            f"{name} is not a readable ExecuTorch program: {problem!r}",
            next_step="copy the artifact again, or compile it anew",
        ) from problem


def count_operators(program: Program) -> tuple[OpCount, ...]:
    """Return the operators by kind, type and executor; a shared constant counts once."""
    counts: Counter[tuple[str, str, str]] = Counter()
    weights: Counter[tuple[str, str, str]] = Counter()
    seen: set[str] = set()
    for node in program.nodes:
        key = (node.op, node.precision, node.where)
        counts[key] += 1
        weights[key] += sum(size for name, size in node.constants.items() if name not in seen)
        seen.update(node.constants)
    return tuple(
        OpCount(
            op=op, dtype=dtype, where=where, count=count, weight_bytes=weights[op, dtype, where]
        )
        for (op, dtype, where), count in sorted(counts.items())
    )


def _read_plan(program: Any, plan: Any) -> Program:
    from executorch.exir.schema import DelegateCall

    nodes: list[Node] = []
    delegate_calls = []
    for chain in plan.chains:
        for position, instruction in enumerate(chain.instructions):
            nodes += _read_instruction(program, plan, instruction.instr_args, position)
            if isinstance(instruction.instr_args, DelegateCall):
                delegate_calls.append(position)
    return Program(
        nodes=tuple(nodes),
        inputs=tuple(_tensor(plan.values[index].val) for index in plan.inputs),
        outputs=tuple(_tensor(plan.values[index].val) for index in plan.outputs),
        planned_bytes=sum(plan.non_const_buffer_sizes),
        delegate_calls=tuple(delegate_calls),
    )


def _read_instruction(program: Any, plan: Any, call: Any, position: int) -> Iterator[Node]:
    from executorch.exir.schema import DelegateCall, KernelCall

    if isinstance(call, KernelCall):
        yield _kernel(program, plan, call, position)
    elif isinstance(call, DelegateCall):
        called = plan.delegates[call.delegate_index]
        delegate = delegate_of(called.id)
        if delegate is None:
            name = f"{called.id}_{position}"
            yield Node(name=name, op=name, dtype="unknown", where=called.id, constants={})
            return
        payload = program.backend_delegate_data[called.processed.index].data
        yield from delegate.read_nodes(bytes(payload), f"{position}.")


def _kernel(program: Any, plan: Any, call: Any, position: int) -> Node:
    """Return a call of one of ExecuTorch's own kernels; its last argument is its result."""
    operator = plan.operators[call.op_index]
    op = f"{operator.name}.{operator.overload}" if operator.overload else operator.name
    arguments = [plan.values[index].val for index in call.args]
    result = arguments[-1]
    if hasattr(result, "items"):  # several results come as a list of tensors
        result = plan.values[result.items[0]].val
    weight = arguments[_WEIGHT_ARGUMENT[op]] if op in _WEIGHT_ARGUMENT else None
    return Node(
        name=f"{position}.{op}",
        op=op,
        dtype=_dtype(result) if hasattr(result, "scalar_type") else "unknown",
        where="portable",
        constants=dict(item for value in arguments for item in _constant(program, value)),
        weight_dtype=_dtype(weight) if weight else None,
        weight_shape=tuple(weight.sizes) if weight else None,
    )


def _constant(program: Any, value: Any) -> Iterator[tuple[str, int]]:
    """Yield key and bytes of an argument that is a constant tensor."""
    index = getattr(value, "data_buffer_idx", 0)
    if index and value.allocation_info is None:
        yield f"constant {index}", len(program.constant_buffer[index].storage)


def _tensor(value: Any) -> Tensor:
    return Tensor(shape=tuple(value.sizes), dtype=_dtype(value))


def _dtype(value: Any) -> str:
    """Return NumPy's name of an ExecuTorch scalar type, the enumeration's own where it has none."""
    names = {
        "FLOAT": "float32", "HALF": "float16", "DOUBLE": "float64", "CHAR": "int8",
        "BYTE": "uint8", "SHORT": "int16", "INT": "int32", "LONG": "int64", "BOOL": "bool",
    }  # fmt: skip
    name = str(value.scalar_type.name)
    return names.get(name, name.lower())
