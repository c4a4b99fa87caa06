"""What the file computes, in PyTorch and without the file."""

from __future__ import annotations

import torch
from torch import Tensor

from edgesdk.compress.pt2e import quantize_graph
from edgesdk.compressed import CompressedModel
from edgesdk.scheme import FLOAT_SCHEMES
from edgesdk.target import Simulation
from edgesdk.task import Tensors, output_tensors
from edgesdk_coreml.simulate import simulate_model as simulate_float


def simulate_model(model: CompressedModel) -> Simulation:
    """Return a function of ``[N, ...]`` tensors, any N, computing as the emitted file does.

    Float networks are the module itself, float16 ones with every operator's result rounded. In
    integers XNNPACK requantizes with one float multiplication where the graph rounds a float
    result, so the two may differ by one quantization step. The graph is built once, here.
    """
    if model.schemes <= set(FLOAT_SCHEMES):
        return simulate_float(model)
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
