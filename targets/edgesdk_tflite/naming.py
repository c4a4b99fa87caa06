"""Short names in the file: inputs and outputs as the task calls them, tensors after their layer.

The converter names every tensor after the Python classes around it, a third of a small file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import UnsupportedModel
from edgesdk_tflite.attribution import layer_of_kernel
from edgesdk_tflite.flatbuffer import KERNEL_INPUTS, items, operator_name, pack, unpack

# The leading parts of each name the converter gives: the wrapper's class and the model's.
_AROUND_THE_MODEL = 2


@dataclass(frozen=True, kw_only=True)
class Named:
    """A renamed file, and for each operator's output tensor the model layer it came from."""

    content: bytes
    layer_of: Mapping[str, str]


@dataclass
class _Names:
    """Gives each name out once; a second "conv1" becomes "conv1;1"."""

    uses: dict[str, int] = field(default_factory=dict)

    def take(self, name: str) -> str:
        count = self.uses.get(name, 0)
        self.uses[name] = count + 1
        return self.take(f"{name};{count}") if count else name


def name_tensors(
    content: bytes, inputs: Sequence[str], outputs: Sequence[str], layer_of: Callable[[str], str],
    weights: Mapping[str, NDArray[np.float32]],
) -> Named:  # fmt: skip
    """Return a converted file with its signature and tensors renamed, otherwise unchanged.

    ``inputs`` and ``outputs`` are the task's names in the model's order, which becomes the
    signature's order; ``layer_of`` gives the layer for a name of the converter's (empty: none), and
    ``weights`` the linear layers' own, which tell them apart where names do not.
    """
    model = unpack(content)
    signature, graph = model.signatureDefs[0], model.subgraphs[0]
    signature.inputs = _reordered(signature.inputs, "args", inputs)
    signature.outputs = _reordered(signature.outputs, "output", outputs)
    layer_of_operator = [
        _layer_by_weight(model, graph, op, weights, named=_layer(model, graph, op, layer_of))
        for op in items(graph.operators)
    ]
    names, given = _Names(), dict[int, str]()
    for entry in (*signature.inputs, *signature.outputs):
        if entry.tensorIndex not in given:
            given[entry.tensorIndex] = names.take(entry.name)
    for op, layer in zip(items(graph.operators), layer_of_operator, strict=True):
        base = layer or operator_name(model, op).lower()
        for index in (*items(op.outputs), *items(op.inputs)):
            if index >= 0 and int(index) not in given:
                given[int(index)] = names.take(base)
    for index, tensor in enumerate(graph.tensors):
        tensor.name = given.get(index) or names.take("unused")
    known = {
        given[int(index)]: layer
        for op, layer in zip(items(graph.operators), layer_of_operator, strict=True)
        for index in items(op.outputs)
        if layer
    }
    return Named(content=pack(model), layer_of=known)


def layer_in_hierarchy(layers: Mapping[str, str], name: str) -> str:
    """Return the module path of a name that litert-torch gave, empty where it is no layer's.

    ``layers`` has a path for each name below the model's own.
    """
    return layers.get("/".join(name.split("/")[_AROUND_THE_MODEL:]), "")


def _reordered(entries: list[Any], prefix: str, names: Sequence[str]) -> list[Any]:
    """Return the signature's entries in the model's order, named as the task names them.

    The converter numbers them, and sorts "args_10" before "args_2".
    """
    by_name = {entry.name.decode(): entry for entry in entries}
    unique, found = _Names(), []
    for position, name in enumerate(names):
        entry = by_name.pop(f"{prefix}_{position}", None)
        if entry is None:
            break
        entry.name = unique.take(name)
        found.append(entry)
    if len(found) != len(names) or by_name:
        raise UnsupportedModel(
            f"the converted model has {len(entries)} {prefix} and the task names {len(names)}",
            expected="one tensor per argument of forward, and one or a tuple of tensors returned",
        )
    return found


def _layer(model: Any, graph: Any, op: Any, layer_of: Callable[[str], str]) -> str:
    """Return the layer of an operator: its kernel's, whose name no fused activation replaces."""
    kernels = [op.inputs[i] for i in KERNEL_INPUTS.get(operator_name(model, op), ())]
    constant = [i for i in kernels if model.buffers[graph.tensors[i].buffer].data is not None]
    for index in (*constant, *items(op.outputs)):
        # Operators that were fused are listed one after the other, the first to compute last.
        for hierarchy in reversed((graph.tensors[index].name or b"").decode().split(";")):
            layer = layer_of(hierarchy)
            if layer:
                return layer
    return ""


def _layer_by_weight(
    model: Any, graph: Any, op: Any, weights: Mapping[str, NDArray[np.float32]], *, named: str
) -> str:
    """Return the linear layer whose weight an operator multiplies by, else the layer it is named
    after."""
    if operator_name(model, op) != "FULLY_CONNECTED":
        return named
    tensor = graph.tensors[op.inputs[1]]
    data = model.buffers[tensor.buffer].data
    if data is None:
        return named
    kernel = np.asarray(data, np.uint8).view(np.float32).reshape(items(tensor.shape))
    return layer_of_kernel(kernel, weights, named)
