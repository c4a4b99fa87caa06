"""A network that computes in float what its quantized file computes in integers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgesdk.compress.grids import Grids, find_grids
from edgesdk.compress.program import Program
from edgesdk.compress.ranges import observe_grids, portions
from edgesdk.compress.rounding import Quantizer, Rounding, round_activation, round_weight
from edgesdk.errors import TaskError
from edgesdk.task import Tensors


class Programs:
    """A network's program and grids for every shape of inputs met; copies share them."""

    def __init__(self, quantizer: Quantizer) -> None:
        self._quantizer = quantizer
        self._known: dict[tuple[object, ...], tuple[Program, Grids]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Programs:
        return self  # holds graphs, no weights: a copy of the network has the same ones

    def of(self, network: nn.Module, inputs: Tensors) -> tuple[Program, Grids]:
        """Return the program and grids for inputs of these shapes; they are traced once."""
        key = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        if key not in self._known:
            program = Program(network, inputs)
            self._known[key] = program, find_grids(program, self._quantizer)
        return self._known[key]


class FakeQuantized(nn.Module):
    """``network`` with weights and activations rounded as ``rounding`` says, differentiable.

    Its parameters are those of ``network``, in float, and training trains them: every forward
    rounds them anew, with the gradient of no rounding at all. The grids of activations are
    buffers, found by ``observe`` on the network in float, as a target's calibration finds them.
    ``network`` is in the form of ``fold_batch_norms``.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, network: nn.Module, example_inputs: Tensors, rounding: Rounding) -> None:
        super().__init__()
        self.network = network
        self.rounding = rounding
        self.programs = Programs(rounding.quantizer)
        self._batch = example_inputs[0].shape[0]
        count = self.programs.of(network, example_inputs)[1].count
        device = example_inputs[0].device
        self.register_buffer("scale", torch.ones(count, device=device))
        self.register_buffer("zero_point", torch.zeros(count, dtype=torch.int32, device=device))

    def forward(self, *inputs: Tensor) -> Any:
        """Return what the network returns, computed on the grids."""
        program, grids = self.programs.of(self.network, inputs)
        evaluation = program.start(
            self.network, inputs, weight=self.rounded_weight(program), result=self.rounded(grids)
        )
        return evaluation.finish()

    def rounded_weight(self, program: Program) -> Any:
        """Return the function that rounds the weight of a node."""
        return lambda node, value: round_weight(value, program.weighted[node], self.rounding)

    def rounded(self, grids: Grids) -> Any:
        """Return the function that rounds the result of a node, where one is to be rounded."""

        def replace(node: fx.Node, value: Tensor) -> Tensor:
            number = grids.rounded.get(node)
            if number is None:
                return value
            return round_activation(value, self.scale[number], self.zero_point[number])

        return replace

    def observe(self, calibration: Sequence[Tensors]) -> None:
        """Find the grids of all activations on what the float network gives on ``calibration``.

        The network sees batches of the example inputs' size, as the target's calibration does.
        Raises ``TaskError`` where there is no sample.
        """
        if not calibration:
            raise TaskError(
                "quantization needs calibration data and there is none",
                next_step="give the Task a calibration function that yields input tuples",
            )
        device = self.scale.device
        placed = [tuple(t.to(device) for t in batch) for batch in calibration]
        scale, zero_point = observe_grids(
            self.network,
            partial(self.programs.of, self.network),
            list(portions(placed, self._batch)),
            self.rounding.quantizer,
        )
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
