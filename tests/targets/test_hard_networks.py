"""Networks that a converter or a runtime once took wrongly: every target computes them now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.parity import compare, gate
from edgesdk.running.adapter import decode_outputs, encode_inputs
from edgesdk.target import find_target
from edgesdk.task import InputSpec, OutputSpec

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]

DEVICES = {
    "executorch": "raspberry_pi_5",
    "tflite": "raspberry_pi_5",
    "coreml": "iphone_15_pro",
    "onnx": "jetson_orin_nano",
}


class LearnedQuery(nn.Module):
    """Attention pooling: the queries depend on no input and are folded into a constant.

    They lie in memory as a transposed view does, which ExecuTorch refuses at run time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, 32))
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.attention(self.probe.repeat(len(x), 1, 1), x, x)[0]
        return result


class LearnedQueries(nn.Module):
    """The same with several queries and fused attention, as in DETR's decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 5, 32))
        self.project = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        query = self.project(self.queries).view(1, 5, 4, 8).transpose(1, 2).expand(rows, 4, 5, 8)
        key = x.view(rows, 16, 4, 8).transpose(1, 2)
        found = functional.scaled_dot_product_attention(query, key, key)
        return found.transpose(1, 2).reshape(rows, 5, 32)


class ViewedAttention(nn.Module):
    """Fused attention whose result is viewed: taken apart it lies in memory in another order."""

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        heads = x.view(rows, 16, 4, 8).transpose(1, 2)
        found = functional.scaled_dot_product_attention(heads, heads, heads)
        return found.transpose(1, 2).contiguous().view(rows, 16, 32)


class ZeroPaddedPooling(nn.Module):
    """Zeros around the image, then max pooling: not the pooling's own padding (BiT's stem)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.pad(self.conv(x) - 1, (1, 1, 1, 1)), 3, 2)


NETS: Mapping[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "learned query": (LearnedQuery, (16, 32)),
    "learned queries": (LearnedQueries, (16, 32)),
    "viewed attention": (ViewedAttention, (16, 32)),
    "zero-padded pooling": (ZeroPaddedPooling, (2, 9, 9)),
}


@pytest.mark.parametrize("target_name", DEVICES)
@pytest.mark.parametrize("name", NETS)
def test_the_float_file_follows_pytorch(name: str, target_name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, shape = NETS[name]
    module, samples = make().eval(), (torch.randn(4, *shape),)
    target = find_target(target_name)
    runtime = load_device(DEVICES[target_name]).runtime_for(target_name)
    model = CompressedModel(
        module=module,
        example_inputs=(samples[0][:1],),
        scheme=runtime.float_scheme,
        calibration=(),
        inputs=(InputSpec(name="x"),),
        outputs=(OutputSpec(name="y"),),
    )
    emission = target.emit(model, runtime, tmp_path)
    host = target.host_runtime(runtime)
    assert host is not None
    session = target.open(tmp_path, emission, host.name, 1)
    stacked, count = encode_inputs(samples, emission.inputs)
    outputs = [session.run(list(batch))[0] for batch in zip(*stacked, strict=True)]
    actual = decode_outputs([np.stack(outputs)], emission.outputs, count)
    with torch.no_grad():
        reference = (module(*samples),)
    checks = target.checks(tmp_path, emission, model)
    gate(compare(reference, actual, model.outputs, checks, runtime=host), model.scheme)
