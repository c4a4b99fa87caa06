"""Low-rank factorisation: a layer becomes two whose answers lie in few directions.

The best rank-r layer is the one that answers as the layer does on real inputs, not the one with
the nearest weights. With ``y = W x + b`` and the covariance of the answers ``y`` on calibration
inputs, its leading eigenvectors ``U`` ``[out, r]`` give

    y'  =  U (U^T W) x  +  b',        b' = b + (I - U U^T) W mean(x)

which loses least of the answers' variance of all layers of rank r, and keeps their mean (Zhang et
al. 2016, "Accelerating Very Deep Convolutional Networks for Classification and Detection", eq. 3
to 6). It is the truncated SVD of ``W S`` with ``S S^T`` the inputs' covariance, the whitening of
SVD-LLM (Wang et al. 2024, arXiv:2403.07378, section 3.1), without inverting ``S``. Directions that
the inputs tell nothing about are ranked by the weights alone: a little of ``W W^T`` is added, and
without inputs it decides, which is the plain SVD of the weights.

The two layers share each direction's size evenly (its square root each), so that neither the
values between them nor the second one's weights need more range than they must once rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgesdk.compress.dependency import prunable_copy
from edgesdk.compress.shared_copy import shared_copy
from edgesdk.errors import TaskError, UnsupportedModel, UsageError, near_names
from edgesdk.graph import OpGraph
from edgesdk.low_rank import MOST_OUTPUTS, LayerSplit, Splits, splittable_ops, with_splits
from edgesdk.residual import computes_alike
from edgesdk.task import Tensors
from edgesdk.trace import trace

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_SPLITTABLE = (nn.Linear, *_CONVOLUTIONS)

# How much the weights alone say about a direction, beside what the inputs say.
_PRIOR = 1e-3

# A direction of no size still has two halves to share it.
_LEAST_SIZE = 1e-6

# Covariances that are summed up in one pass may hold so many numbers (512 MB in double precision).
_MOST_NUMBERS = 2**26


@dataclass(frozen=True, kw_only=True)
class SplitSurvey:
    """The layers that can be split, and for those that look so and cannot the reason."""

    layers: tuple[str, ...]
    refused: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Directions:
    """What a layer answers: the mean ``[out]`` without bias, and orthonormal directions
    ``[out, out]`` with their sizes ``[out]``, largest first, in double precision."""

    mean: Tensor
    vectors: Tensor
    sizes: Tensor


def survey_splits(
    model: nn.Module, example_inputs: Tensors, graph: OpGraph, layers: Sequence[str]
) -> SplitSurvey:
    """Return which of the layers of a model, traced as ``graph``, can be split.

    Nothing is believed untested: the model with the layers split, traced, must be the graph with
    two operators in place of each. All are tried together; where that fails, in halves.
    """
    modules = dict(model.named_modules())
    refused = {
        name: f"it is a {type(modules.get(name)).__name__}"
        for name in layers
        if not _is_plain(modules.get(name))
    }
    candidates = [name for name in layers if name not in refused]
    found = _proven(model, example_inputs, graph, candidates, refused)
    return SplitSurvey(layers=tuple(found), refused=refused)


def factorized(
    model: nn.Module, example_inputs: Tensors, ranks: Mapping[str, int],
    batches: Sequence[Tensors],
) -> nn.Module:  # fmt: skip
    """Return a copy of the model, on the CPU, whose named layers are two layers of that rank.

    ``batches`` are inputs ``[N, ...]`` that show what the layers answer; without any the weights
    alone decide. Raises ``UsageError`` for layers and ranks that are not the model's.
    """
    check_ranks(model, example_inputs, ranks)
    found = prunable_copy(model)
    for name, module in model.named_modules():
        found.get_submodule(name).training = module.training
    for name, parameter in model.named_parameters():
        found.get_parameter(name).requires_grad_(parameter.requires_grad)
    for name, directions in layer_directions(found, ranks, batches):
        replace_layer(found, name, split_layer(found.get_submodule(name), directions, ranks[name]))
    return found


def check_ranks(model: nn.Module, example_inputs: Tensors, ranks: Mapping[str, int]) -> None:
    """Raise ``UsageError`` unless every named layer can be split at its rank."""
    modules = dict(model.named_modules())
    known = [name for name, module in modules.items() if _is_plain(module)]
    for name, rank in ranks.items():
        if name not in known:
            near = near_names(name, known)
            raise UsageError(
                f"the model has no layer {name!r} to split",
                expected="a linear layer or a convolution of one or two dimensions in one group",
                next_step=f"did you mean {' or '.join(near)}?" if near else "make a new plan",
            )
        out, *rest = _weight(modules[name]).shape
        most = min(out, math.prod(rest))
        if not 0 < rank < most:
            raise UsageError(
                f"layer {name!r} cannot be split at rank {rank}",
                expected=f"a rank from 1 to {most - 1}",
            )
    inputs = tuple(example.cpu() for example in example_inputs)
    graph = trace(model, inputs, name="model")
    own = {op.layer for op in splittable_ops(graph)}
    refused = {name: _NOT_ALONE for name in ranks if name not in own}
    _proven(model, inputs, graph, [name for name in ranks if name in own], refused)
    for name, reason in refused.items():
        raise UsageError(
            f"layer {name!r} cannot be split: {reason}",
            next_step="leave it out of the plan's 'factorize' step",
        )


_NOT_ALONE = (
    f"its weights are read elsewhere, more than once or not at all, or it has more than "
    f"{MOST_OUTPUTS} outputs"
)


@torch.no_grad()
def layer_directions(
    model: nn.Module, layers: Iterable[str], batches: Sequence[Tensors]
) -> Iterator[tuple[str, Directions]]:
    """Yield what each of the layers answers on those inputs, in the order given.

    Several layers share one pass over the inputs, as many as memory should hold at once.
    """
    runner = shared_copy(model).eval()
    for chunk in _chunks(runner, list(layers)):
        watches = {name: _Watch(runner.get_submodule(name)) for name in chunk}
        for inputs in batches:
            runner(*inputs)
        for name, watch in watches.items():
            watch.handle.remove()
            yield name, watch.directions()


class _Watch:
    """Sums up what a layer answers, over all positions of all samples."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        out = len(_weight(layer))
        self._count = 0
        self._sum = torch.zeros(out, dtype=torch.float64)
        self._products = torch.zeros(out, out, dtype=torch.float64)
        self.handle = layer.register_forward_hook(self._add)

    def _add(self, _layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        channels = output.dim() - 1 if isinstance(self._layer, nn.Linear) else 1
        rows = output.detach().movedim(channels, -1).flatten(0, -2).double()
        self._count += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    def directions(self) -> Directions:
        weight = _weight(self._layer).detach().flatten(1).double()
        of_weights = weight @ weight.T
        mean, covariance = torch.zeros_like(self._sum), of_weights
        if self._count:
            mean = self._sum / self._count
            covariance = self._products / self._count - torch.outer(mean, mean)
            mean = mean - _bias(self._layer)
            share = covariance.trace() / of_weights.trace().clamp_min(1e-300)
            covariance = covariance + _PRIOR * share * of_weights
        values, vectors = torch.linalg.eigh(covariance)
        sizes = values.flip(0).clamp_min(0).sqrt()
        return Directions(mean=mean, vectors=_signed(vectors.flip(1)), sizes=sizes)


def _signed(vectors: Tensor) -> Tensor:
    """Return columns whose largest entry is positive: eigenvectors have no sign of their own."""
    largest = vectors.abs().argmax(0)
    signs = vectors[largest, torch.arange(vectors.shape[1])].sign()
    return vectors * torch.where(signs == 0, torch.ones_like(signs), signs)


@torch.no_grad()
def split_layer(layer: nn.Module, directions: Directions, rank: int) -> nn.Sequential:
    """Return the two layers that answer as the layer does in its ``rank`` largest directions."""
    weight = _weight(layer)
    vectors, sizes = directions.vectors[:, :rank], directions.sizes[:rank]
    shares = (sizes / sizes.max().clamp_min(1e-300)).clamp_min(_LEAST_SIZE).sqrt()
    low = (vectors / shares).T @ weight.detach().flatten(1).double()
    missed = directions.mean - vectors @ (vectors.T @ directions.mean)
    pair = _empty_halves(layer, rank)
    filled = (low, vectors * shares, missed + _bias(layer))
    for parameter, values in zip(pair.parameters(), filled, strict=True):
        parameter.copy_(values.reshape(parameter.shape))
    return pair


def _empty_halves(layer: nn.Module, rank: int) -> nn.Sequential:
    """Return two layers of the right shapes, trained where the layer's weight is."""
    weight = _weight(layer)
    like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    if isinstance(layer, nn.Linear):
        halves: tuple[nn.Module, nn.Module] = (
            nn.Linear(layer.in_features, rank, bias=False, **like),
            nn.Linear(rank, layer.out_features, **like),
        )
    else:
        assert isinstance(layer, _CONVOLUTIONS)
        kind: Any = type(layer)
        halves = (
            kind(
                layer.in_channels,
                rank,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                bias=False,
                padding_mode=layer.padding_mode,
                **like,
            ),
            kind(rank, layer.out_channels, 1, **like),
        )
    pair = nn.Sequential(*halves).train(layer.training)
    return pair.requires_grad_(weight.requires_grad)


def replace_layer(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in a layer's place."""
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, module)


def _is_plain(module: nn.Module | None) -> bool:
    return type(module) in _SPLITTABLE and getattr(module, "groups", 1) == 1


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _bias(layer: nn.Module) -> Tensor:
    """Return a layer's bias in double precision, zeros where it has none."""
    if isinstance(layer.bias, Tensor):
        return layer.bias.detach().double()
    return torch.zeros(len(_weight(layer)), dtype=torch.float64)


def _chunks(model: nn.Module, layers: Sequence[str]) -> Iterator[list[str]]:
    """Yield the layers by as many as may be watched in one pass, one at least."""
    chunk: list[str] = []
    numbers = 0
    for name in layers:
        own = len(_weight(model.get_submodule(name))) ** 2
        if chunk and numbers + own > _MOST_NUMBERS:
            yield chunk
            chunk, numbers = [], 0
        chunk.append(name)
        numbers += own
    if chunk:
        yield chunk


def _proven(
    model: nn.Module, example_inputs: Tensors, graph: OpGraph, layers: Sequence[str],
    refused: dict[str, str],
) -> list[str]:  # fmt: skip
    """Return the layers that pass the trial; the reasons of the others go to ``refused``."""
    if not layers:
        return []
    reason = _trial(model, example_inputs, graph, layers)
    if reason is None:
        return list(layers)
    if len(layers) == 1:
        refused[layers[0]] = reason
        return []
    middle = len(layers) // 2
    parts = (layers[:middle], layers[middle:])
    return [name for part in parts for name in _proven(model, example_inputs, graph, part, refused)]


def _trial(
    model: nn.Module, example_inputs: Tensors, graph: OpGraph, layers: Sequence[str]
) -> str | None:
    """Return why the model with the layers split is not what it should be, None where it is."""
    splits: Splits = tuple(LayerSplit(name, 1) for name in layers)
    changed = prunable_copy(model)
    for name in layers:
        replace_layer(changed, name, _empty_halves(changed.get_submodule(name), 1))
    try:
        found = trace(changed, tuple(x.cpu() for x in example_inputs), name=graph.model)
    except (TaskError, UnsupportedModel) as problem:
        return problem.found
    if not computes_alike(with_splits(graph, splits), found):
        return "the model looks into it, and with two layers there computes something else"
    return None
