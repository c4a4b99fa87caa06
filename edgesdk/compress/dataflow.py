"""What flows into what: the function calls of one forward pass, from layer to layer.

Autograd's record, which ``dependency`` follows, forgets what a matrix product's factors are. Here
calls keep their arguments in order: which is the query of an attention and which its mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from edgesdk.compress.channel_slices import is_depthwise, is_weighted
from edgesdk.task import Tensors, output_tensors
from edgesdk.user_code import user_code


@dataclass(frozen=True, kw_only=True)
class Call:
    """One function call: its name and, in order, the numbers of the tensors in and out.

    ``parameters`` are the names of the parameters among the inputs; ``layer`` is the linear,
    convolutional (a depthwise one excepted) or recurrent layer whose weight it reads, if any.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    parameters: tuple[str, ...]
    layer: str | None


@dataclass(frozen=True, kw_only=True)
class Origins:
    """Where a tensor comes from: the layers that made it, and the parameters on the way."""

    layers: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataFlow:
    """The calls of one forward pass in order, every tensor's shape, and the model's outputs."""

    calls: tuple[Call, ...]
    shapes: Mapping[int, tuple[int, ...]]
    parameters: Mapping[int, str]
    outputs: frozenset[int]

    @cached_property
    def _makers(self) -> Mapping[int, Call]:
        return {number: call for call in self.calls for number in call.outputs}

    @cached_property
    def _readers(self) -> Mapping[int, Sequence[Call]]:
        found: dict[int, list[Call]] = {}
        for call in self.calls:
            for number in call.inputs:
                found.setdefault(number, []).append(call)
        return found

    def back(
        self, number: int, *, until: Callable[[Call], bool] = lambda _: False
    ) -> Iterator[Call]:
        """Yield the calls that lead to a tensor, as far as the layers that compute it."""
        seen: set[int] = set()
        stack = [number]
        while stack:
            call = self._makers.get(stack.pop())
            if call is None or id(call) in seen:
                continue
            seen.add(id(call))
            yield call
            if call.layer is None and not until(call):
                stack.extend(call.inputs)

    def forth(
        self, number: int, *, until: Callable[[Call], bool] = lambda _: False
    ) -> Iterator[Call]:
        """Yield the calls that a tensor leads to, as far as the layers that read it."""
        seen: set[int] = set()
        stack = [number]
        while stack:
            for call in self._readers.get(stack.pop(), ()):
                if id(call) not in seen:
                    seen.add(id(call))
                    yield call
                    if call.layer is None and not until(call):
                        stack.extend(call.outputs)

    def origins(self, number: int, *, until: Callable[[Call], bool] = lambda _: False) -> Origins:
        """Return the layers that a tensor was computed by and the parameters that met it since."""
        own = [self.parameters[number]] if number in self.parameters else []
        return _met(self.back(number, until=until), own)

    def destinations(self, *numbers: int) -> Origins:
        """Return the layers that read a tensor and the parameters that it meets before."""
        return _met(call for number in numbers for call in self.forth(number))

    def is_output(self, *numbers: int) -> bool:
        """Return whether a tensor reaches the model's outputs without passing a layer."""
        calls = (call for number in numbers for call in self.forth(number))
        ends = {n for call in calls if call.layer is None for n in call.outputs}
        return bool(self.outputs & (ends | set(numbers)))

    def looked_up(self, parameter: str) -> list[tuple[int, ...]]:
        """Return the shapes of what the calls that read a parameter give."""
        calls = [call for call in self.calls if parameter in call.parameters]
        return [self.shapes[call.outputs[0]] for call in calls]


def _met(calls: Iterable[Call], own: Iterable[str] = ()) -> Origins:
    layers: dict[str, None] = {}
    parameters: dict[str, None] = dict.fromkeys(own)
    for call in calls:
        if call.layer is None:
            parameters |= dict.fromkeys(call.parameters)
        else:
            layers[call.layer] = None
    return Origins(layers=tuple(layers), parameters=tuple(parameters))


def record_flow(model: nn.Module, example_inputs: Tensors) -> DataFlow:
    """Return the calls of one forward pass; raises ``TaskError`` for what the model raises."""
    recorder = _Recorder(model)
    with torch.no_grad(), user_code("the model on its example inputs"), recorder:
        outputs = output_tensors(model(*example_inputs))
    return DataFlow(
        calls=tuple(recorder.calls),
        shapes=dict(enumerate(tuple(tensor.shape) for tensor in recorder.kept)),
        parameters={recorder.number(p): n for n, p in model.named_parameters()},
        outputs=frozenset(recorder.number(output) for output in outputs),
    )


class _Recorder(TorchFunctionMode):
    """Writes down every call. A tensor changed in place is a new one from there on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: list[Call] = []
        # All tensors stay alive, for a dead one's id may be given to another.
        self.kept: list[Tensor] = []
        self._numbers: dict[int, int] = {}
        self._names = {id(p): name for name, p in model.named_parameters(remove_duplicate=False)}
        self._layers = {
            id(parameter): name
            for name, layer in model.named_modules()
            if isinstance(layer, nn.RNNBase) or (is_weighted(layer) and not is_depthwise(layer))
            for parameter in layer.parameters()
            if parameter.dim() > 1
        }

    def number(self, tensor: Tensor, *, new: bool = False) -> int:
        """Return a tensor's number, a new one where it is not known yet."""
        if new or id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self.kept)
            self.kept.append(tensor)
        return self._numbers[id(tensor)]

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "__iter__":
            result = list(result)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if made:
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            own = [tensor for tensor in read if id(tensor) in self._names]
            layers = [self._layers[id(tensor)] for tensor in own if id(tensor) in self._layers]
            inputs = tuple(self.number(tensor) for tensor in read)
            self.calls.append(
                Call(
                    name=getattr(func, "__name__", str(func)),
                    inputs=inputs,
                    outputs=tuple(self.number(tensor, new=True) for tensor in made),
                    parameters=tuple(self._names[id(tensor)] for tensor in own),
                    layer=layers[0] if layers else None,
                )
            )
        return iter(result) if getattr(func, "__name__", "") == "__iter__" else result
