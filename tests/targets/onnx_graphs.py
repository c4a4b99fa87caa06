"""Small ONNX graphs written by hand, and what emitting a network as ONNX needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from torch import Tensor, nn

from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.device_files import load_device
from edgesdk.scheme import Scheme
from edgesdk.task import InputSpec, OutputSpec, output_tensors
from edgesdk_onnx.tensorrt import IR_VERSION, OPSET

SHAPE = (1, 3, 8, 8)


class Residual(nn.Module):
    """A stem, a residual block with a batch norm, a pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        x = self.pool(torch.relu(x + self.norm(self.conv(x))))
        return self.head(x.mean((2, 3)))


def runtime() -> Runtime:
    return load_device("jetson_orin_nano").runtime_for("onnx")


def residual() -> nn.Module:
    torch.manual_seed(0)
    net = Residual()
    with torch.no_grad():  # batch norm statistics that are not the identity
        net.train()
        for _ in range(10):
            net(torch.randn(8, *SHAPE[1:]))
    return net.eval()


def samples(count: int = 16) -> Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(1))


def compressed(net: nn.Module, scheme: Scheme, inputs: tuple[Tensor, ...]) -> CompressedModel:
    with torch.no_grad():
        outputs = output_tensors(net(*inputs))
    return CompressedModel(
        module=net,
        example_inputs=tuple(tensor[:1] for tensor in inputs),
        scheme=scheme,
        calibration=(inputs,),
        inputs=tuple(InputSpec(name=f"in_{i}") for i in range(len(inputs))),
        outputs=tuple(OutputSpec(name=f"out_{i}") for i in range(len(outputs))),
    )


def graph(
    nodes: list[Any], constants: dict[str, np.ndarray[Any, Any]], *, shape: tuple[int, ...] = SHAPE,
    output: str = "y",
) -> Any:  # fmt: skip
    """A model from "x" to one output, its nodes named by their result."""
    for node in nodes:
        node.name = node.name or f"layer/{node.output[0]}"
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = helper.make_graph(
        nodes,
        "model",
        [value],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=imports, ir_version=IR_VERSION)
    inferred = shape_inference.infer_shapes(model)
    del inferred.graph.value_info[:]
    return inferred


def conv(source: str, weight: str, result: str, **attributes: Any) -> Any:
    return helper.make_node("Conv", [source, weight], [result], pads=[1, 1, 1, 1], **attributes)


def kernel(out: int, into: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(out, into, 3, 3)).astype(np.float32)
