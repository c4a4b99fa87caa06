"""The quantized graph in PyTorch: what the file computes, without the file."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.compress.pt2e import quantize_graph
from edgesdk.compressed import CompressedModel
from edgesdk.target import Simulation
from edgesdk.task import Tensors, output_tensors


def simulate_quantized(model: CompressedModel) -> Simulation:
    """Return a function of ``[N, ...]`` tensors, any N, computing as the emitted file does.

    XNNPACK requantizes with one float multiplication where the graph rounds a float result, so
    the two may differ by one quantization step. The graph is built once, here.
    """
    graph = quantize_graph(model)
    batch = model.example_inputs[0].shape[0]

    def simulation(*inputs: Tensor) -> Tensors:
        count = inputs[0].shape[0]
        parts = []
        for start in range(0, count, batch):
            rows = torch.arange(start, start + batch).clamp(max=count - 1)
            with torch.no_grad():
                parts.append(output_tensors(graph(*(tensor[rows] for tensor in inputs))))
        return tuple(torch.cat(part)[:count] for part in zip(*parts, strict=True))

    return simulation
