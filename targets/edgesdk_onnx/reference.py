"""What the file should hold for each layer's weights, from the PyTorch module itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgesdk.compressed import CompressedModel
from edgesdk.graph import Op, OpGraph
from edgesdk.trace import trace

_NORM = "batch_norm"


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One use of a layer's weights: ``candidates`` are (weight, bias) as the file may hold them.

    They are the module's own and, where a batch norm alone follows, those with it folded in
    (Jacob et al. 2018, "Quantization and training", section 3.2); none where the weights are
    computed from others.
    """

    name: str
    candidates: tuple[tuple[Tensor, Tensor | None], ...]


def weighted_layers(model: CompressedModel) -> tuple[Layer, ...]:
    """Return every use of weights by a convolution or linear layer, in order."""
    graph = trace(model.module, model.example_inputs, name="")
    state = {**dict(model.module.named_parameters(remove_duplicate=False)),
             **dict(model.module.named_buffers(remove_duplicate=False))}  # fmt: skip
    return tuple(
        Layer(name=op.layer or op.name, candidates=_candidates(op, graph, state))
        for op in graph.ops
        if (op.kind.startswith("conv") or op.kind == "linear") and op.parameters
    )


def _candidates(
    op: Op, graph: OpGraph, state: dict[str, Tensor]
) -> tuple[tuple[Tensor, Tensor | None], ...]:
    tensors = [state.get(name) for name in op.parameters]
    if tensors[0] is None or tensors[0].dim() < 2:
        return ()
    weight = tensors[0].detach().float()
    bias = tensors[1] if len(tensors) > 1 else None
    own = (weight, None if bias is None else bias.detach().float())
    readers = [other for other in graph.ops if op.outputs[0] in other.inputs]
    if len(readers) != 1 or readers[0].kind != _NORM:
        return (own,)
    folded = _fold(op, readers[0], own, state)
    return (own,) if folded is None else (own, folded)


def _fold(
    op: Op, norm: Op, own: tuple[Tensor, Tensor | None], state: dict[str, Tensor]
) -> tuple[Tensor, Tensor] | None:
    """Return weight and bias with the batch norm folded in; None where it is no constant scale."""
    tensors = [state.get(name) for name in norm.parameters]
    if len(tensors) < 2 or any(tensor is None for tensor in tensors):
        return None
    known = [tensor.detach().float() for tensor in tensors if tensor is not None]
    mean, variance = known[-2:]
    gamma, beta = known[:2] if len(known) == 4 else (torch.ones_like(mean), torch.zeros_like(mean))
    scale = gamma * torch.rsqrt(variance + float(norm.attributes.get("eps", 1e-5)))  # type: ignore[arg-type]
    weight, bias = own
    axis = 1 if "transpose" in op.kind else 0
    if weight.shape[axis] != len(scale):
        return None
    shape = [-1 if d == axis else 1 for d in range(weight.dim())]
    offset = -mean if bias is None else bias - mean
    return weight * scale.reshape(shape), beta + offset * scale
