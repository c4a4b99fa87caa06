"""What ExecuTorch's own operators add to a program: the calls, and the numbers they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgesdk.cost import program_bytes as program
from edgesdk.graph import Op, OpGraph

ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of an operator: its arguments in the order of its schema, results included.

    ``numbers`` of them are numbers, ``lists`` the lengths of lists, and ``tensors`` the results
    that are no tensor of the graph.
    """

    name: str
    arguments: int
    numbers: int = 0
    lists: tuple[int, ...] = ()
    tensors: int = 0


_EXPAND = Call(name="expand_copy", arguments=5, numbers=1, lists=(4,), tensors=1)
_NOT = Call(name="logical_not", arguments=3, tensors=1)
_SCALE = Call(name="mul", arguments=4, tensors=2)
# Attention as safe softmax, on copies of query, key, value and scores; the schemas are those of
# ATen's native_functions.yaml.
_ATTENTION = (
    *(_EXPAND,) * 4, *(_SCALE,) * 2, *(_NOT,) * 2,
    Call(name="eq", arguments=4, numbers=1, tensors=1),
    Call(name="any", arguments=5, numbers=2, tensors=1),
    Call(name="full_like", arguments=5, numbers=2, tensors=1),
    Call(name="where", arguments=5, tensors=1),
)  # fmt: skip
_CALLS: Mapping[str, tuple[Call, ...]] = {
    ATTENTION: _ATTENTION,
    "bmm": (_EXPAND,),
    "matmul": (_EXPAND,),
    "embedding": (Call(name="embedding", arguments=7, numbers=3),),
    "layer_norm": (
        Call(name="native_layer_norm", arguments=9, numbers=1, lists=(1, 3), tensors=2),
    ),
    "mean": (Call(name="mean", arguments=6, numbers=2, lists=(1,)),),
    "upsample_nearest2d": (Call(name="upsample_nearest2d", arguments=5, numbers=1, lists=(2,)),),
    "chunk": (Call(name="split_with_sizes_copy", arguments=5, numbers=1, lists=(2, 2)),),
    "adaptive_avg_pool1d": (
        Call(name="unsqueeze_copy", arguments=4, numbers=1, tensors=1),
        Call(name="squeeze_copy", arguments=4, lists=(1,), tensors=1),
    ),
}


def portable_bytes(op: Op, graph: OpGraph, names: set[str]) -> float:
    """Return the bytes of the calls an operator becomes; their names are added to ``names``.

    An operator that is not known here is one call of five arguments, two of them numbers.
    """
    default = (Call(name=op.kind, arguments=5, numbers=2),)
    size = 0.0
    for call in _CALLS.get(op.kind, default):
        names.add(call.name)
        size += program.call_bytes(call.arguments) + call.numbers * program.number_bytes()
        size += sum(map(program.list_bytes, call.lists))
        rank = len(graph.tensors[op.outputs[0]].shape)
        size += call.tensors * program.tensor_bytes(rank)
    return size
