"""Which layers lose channels together: Torch-Pruning's dependency graph behind a narrow door.

The graph (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning") follows autograd's record
of one forward pass. It treats what it does not know as elementwise and never complains, so
nothing here is believed before ``removal`` has compared outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.compress.channel_slices import (
    Member,
    Side,
    is_frozen_norm,
    is_transposed_linear,
    is_weighted,
    width,
)
from edgesdk.compress.cutting import cut_frozen_norm, cut_transposed_linear
from edgesdk.compress.dataflow import record_flow
from edgesdk.compress.heads import head_groups
from edgesdk.compress.hidden import hidden_groups
from edgesdk.compress.recurrent import recurrent_groups
from edgesdk.errors import EdgeSDKError, UnsupportedModel
from edgesdk.task import Tensors, output_tensors
from edgesdk.user_code import user_code

OUTPUT = "the model's outputs"


class Dependencies:
    """The dependency graph of a model, which it prunes in place: give it a copy.

    Parameters must be trainable and the model in eval mode (``prunable_copy`` sees to both).
    ``failure``: why Torch-Pruning cannot follow the model, None where it can.
    """

    def __init__(self, model: nn.Module, example_inputs: Tensors) -> None:
        self.model = model
        self._names: dict[int, str] = {id(layer): name for name, layer in model.named_modules()}
        self._names |= {id(parameter): name for name, parameter in model.named_parameters()}
        self._graph: Any = torch_pruning.DependencyGraph()
        self._inputs = example_inputs
        self.failure: EngineFailure | None = None
        try:
            self._build()
        except EngineFailure as problem:
            self.failure = problem

    def _build(self) -> None:
        with torch.enable_grad(), _engine("the dependency graph cannot be built"):
            self._graph.build_dependency(
                self.model,
                self._inputs,
                forward_fn=_marked_outputs,
                customized_pruners=_own_pruners(self.model),
                verbose=False,
            )
        nodes = self._graph.module2node.values()
        self._steps = _Steps(edges=sum(len(node.dependencies) for node in nodes))
        for node in nodes:
            node.dependencies = _Counted(node.dependencies, self._steps)

    @cached_property
    def traced(self) -> tuple[Mapping[str, ChannelGroup], Mapping[str, str]]:
        """The groups of attention heads and of recurrent units, by name, and why others are none;
        where Torch-Pruning cannot follow the model, those of hidden layers too.

        To be asked for before anything is removed.
        """
        forget(self.model)
        flow = record_flow(self.model, self._inputs)
        heads, headless = head_groups(self.model, flow)
        units, unitless = recurrent_groups(self.model, flow)
        hidden = {} if self.failure is None else hidden_groups(self.model, flow)
        taken = {member.layer for group in (heads | units).values() for member in group.members}
        rest = {name: group for name, group in hidden.items() if name not in taken}
        return heads | units | rest, headless | unitless

    def roots(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the layers whose output channels could be pruned, in the model's own order."""
        known = self._graph.module2node if self.failure is None else ()
        for name, layer in self.model.named_modules():
            if layer in known and is_weighted(layer):
                yield name, layer

    def members(self, layer: str, channels: Sequence[int], width: int) -> list[Member]:
        """Return every layer that loses channels when ``layer`` loses those output channels.

        One named ``OUTPUT`` stands for the model's outputs. Layers of a type that
        has no name in the model (functional operators) are left out.
        """
        found = []
        for item in self._group(layer, channels):
            node = item.dep.target
            is_output = node.type == torch_pruning.ops.OPTYPE.OUTPUT
            name = OUTPUT if is_output else self._names.get(id(node.module))
            if name is None:
                continue
            out = self._graph.is_out_channel_pruning_fn(item.dep.handler)
            side: Side = "out" if out else "in"
            indices: list[list[int]] = [[] for _ in range(width)]
            for index, root in zip(item.idxs, item.root_idxs, strict=True):
                if root is None:
                    raise UnsupportedModel(f"channels of {layer!r} are repeated before {name!r}")
                indices[root].append(index)
            found.append(
                Member(
                    layer=name,
                    side=side,
                    indices=tuple(tuple(sorted(group)) for group in indices),
                    dim=node.pruning_dim if isinstance(node.module, nn.Parameter) else 0,
                )
            )
        return found

    def remove(self, layer: str, channels: Sequence[int]) -> None:
        """Remove those output channels of ``layer`` and whatever goes with them, in place."""
        group = self._group(layer, channels)
        with _engine(f"channels of layer {layer!r} cannot be removed"):
            group.prune(record_history=False)

    def _group(self, layer: str, channels: Sequence[int]) -> Any:
        if self.failure is not None:
            raise self.failure
        module = self.model.get_submodule(layer)
        with _engine(f"the layers coupled to {layer!r} cannot be found"):
            self._steps.begin()
            function = self._graph.get_pruner_of_module(module).prune_out_channels
            return self._graph.get_pruning_group(module, function, list(channels))


class _Counted(list[Any]):
    """A node's edges; every walk over them is a step of ``steps``."""

    def __init__(self, edges: list[Any], steps: _Steps) -> None:
        super().__init__(edges)
        self._steps = steps

    def __iter__(self) -> Iterator[Any]:
        self._steps.left -= 1
        if self._steps.left < 0:
            raise UnsupportedModel("Torch-Pruning's search for coupled layers goes in circles")
        return super().__iter__()


@dataclass
class _Steps:
    """How much longer a search may go on. Repeated and rotated channels (the attention of
    language models) get indices that grow for ever; DenseNet-121 takes one step per edge."""

    edges: int
    left: int = 0

    def begin(self) -> None:
        self.left = 4 * self.edges + 200


class EngineFailure(UnsupportedModel):
    """Torch-Pruning failed where it should have answered."""


@contextmanager
def _engine(what: str) -> Iterator[None]:
    """Turn what Torch-Pruning raises (assertions, failed look-ups) into ``EngineFailure``."""
    try:
        yield
    except EdgeSDKError:
        raise
    except Exception as problem:
        raise EngineFailure(
            f"{what}: Torch-Pruning raised {type(problem).__name__}: {problem}",
            next_step="leave these layers whole",
        ) from problem


class _TransposedLinear(torch_pruning.BasePruningFunc):  # type: ignore[misc]
    """How Torch-Pruning cuts a linear layer whose weight is [in, out]."""

    TARGET_MODULES = nn.Module

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        cut_transposed_linear(layer, "out", idxs)
        return layer

    def prune_in_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        cut_transposed_linear(layer, "in", idxs)
        return layer

    def get_out_channels(self, layer: nn.Module) -> int:
        return width(layer, "out")

    def get_in_channels(self, layer: nn.Module) -> int:
        return width(layer, "in")


class _FrozenNorm(torch_pruning.BasePruningFunc):  # type: ignore[misc]
    """How Torch-Pruning cuts a batch norm that is all buffers."""

    TARGET_MODULES = nn.Module

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        cut_frozen_norm(layer, idxs)
        return layer

    # The same function for both sides says that they are the same channels.
    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        return width(layer, "out")

    get_in_channels = get_out_channels


def _own_pruners(model: nn.Module) -> dict[type[nn.Module], torch_pruning.BasePruningFunc]:
    linear = {type(m): _TransposedLinear() for m in model.modules() if is_transposed_linear(m)}
    return linear | {type(m): _FrozenNorm() for m in model.modules() if is_frozen_norm(m)}


def prunable_copy(model: nn.Module) -> nn.Module:
    """Return a copy on the CPU, in eval mode, whose weights are all trainable.

    Raises ``UnsupportedModel`` for a module that cannot be copied.
    """
    try:
        copied = copy.deepcopy(model).cpu().eval()
    except Exception as problem:
        raise UnsupportedModel(
            f"the model cannot be copied: {type(problem).__name__}: {problem}",
            next_step="keep no tensors with a gradient history as attributes of a module",
        ) from problem
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    forget(copied)
    return copied


def forget(model: nn.Module) -> None:
    """Make modules drop what they computed from weights and keep for later, in place.

    LeViT's attentions keep their biases in eval mode, and ``train`` is where they let them go.
    """
    model.train()
    model.eval()


def _marked_outputs(model: nn.Module, example_inputs: Tensors) -> list[Tensor]:
    """Run the model; an operator behind each output gives it a node of its own in the graph."""
    with user_code("the model on its example inputs"):
        outputs = output_tensors(model(*example_inputs))
    marked = [output * 1 for output in outputs if output.requires_grad]
    if not marked:
        raise UnsupportedModel(
            "no output of the model has a gradient with respect to its weights",
            expected="a floating-point output computed outside of torch.no_grad",
            next_step="move torch.no_grad() and detach() out of forward",
        )
    return marked
