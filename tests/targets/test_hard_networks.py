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
from edgesdk.scheme import Scheme
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


class PaddedByName(nn.Module):
    """padding="same" is another operator of PyTorch's, with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(x))
        return result


class LayerScale(nn.Module):
    """A factor per channel, of shape [C] and stretched to [C, 1, 1] (ConvNeXt, PoolFormer)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.scale = nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.scale.unsqueeze(-1).unsqueeze(-1) * self.conv(x)
        return result


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(32, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.cells(x)[0][:, -1]
        return result


class ComputedMask(nn.Module):
    """A mask made of comparisons and look-ups, as the attention of transformers makes it."""

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        seen = x.new_ones((), dtype=torch.bool) & (places[:, None] >= places[None, :])
        rows = torch.zeros(1, dtype=torch.int64)[:, None]
        valid = (x.mean(2) > -9.0)[rows, places] & seen[:, :1].T
        scores = x @ x.transpose(1, 2)
        return torch.where(seen & valid[:, None, :], scores, -1e4).softmax(-1) @ x


NETS: Mapping[str, tuple[type[nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "learned query": (LearnedQuery, (16, 32), ("executorch",)),
    "learned queries": (LearnedQueries, (16, 32), ("executorch", "coreml")),
    "viewed attention": (ViewedAttention, (16, 32), ("onnx", "executorch")),
    "zero-padded pooling": (ZeroPaddedPooling, (2, 9, 9), ("onnx", "coreml", "tflite")),
    "padded by name": (PaddedByName, (2, 9, 9), ("coreml", "onnx")),
    "layer scale": (LayerScale, (2, 9, 9), ("coreml", "onnx")),
    "recurrent": (Recurrent, (4, 32), ("coreml",)),
    "computed mask": (ComputedMask, (8, 8), ("coreml", "onnx")),
}
"""The network, the shape of a sample, and the targets that took it wrongly or might."""


def prove(module: nn.Module, samples: Tensor, scheme: Scheme, target_name: str, out: Path) -> None:
    """Emit the module, run the file here and compare it with PyTorch."""
    target = find_target(target_name)
    runtime = load_device(DEVICES[target_name]).runtime_for(target_name)
    model = CompressedModel(
        module=module,
        example_inputs=(samples[:1],),
        scheme=scheme,
        calibration=((samples,),),
        inputs=(InputSpec(name="x"),),
        outputs=(OutputSpec(name="y"),),
    )
    emission = target.emit(model, runtime, out)
    host = target.host_runtime(runtime)
    assert host is not None
    session = target.open(out, emission, host.name, 1)
    stacked, count = encode_inputs((samples,), emission.inputs)
    outputs = [session.run(list(batch))[0] for batch in zip(*stacked, strict=True)]
    actual = decode_outputs([np.stack(outputs)], emission.outputs, count)
    with torch.no_grad():
        reference = (module(samples),)
    checks = target.checks(out, emission, model)
    gate(compare(reference, actual, model.outputs, checks, runtime=host), model.scheme)


@pytest.mark.parametrize(
    ("name", "target_name"), [(name, target) for name in NETS for target in NETS[name][2]]
)
def test_the_float_file_follows_pytorch(name: str, target_name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, shape, _ = NETS[name]
    scheme = load_device(DEVICES[target_name]).runtime_for(target_name).float_scheme
    prove(make().eval(), torch.randn(4, *shape), scheme, target_name, tmp_path)


class TokenTable(nn.Module):
    """A table of token vectors and a layer whose bias the converter gives four dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(10, 8), nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.table(tokens).reshape(-1, 2, 3, 8)
        result: Tensor = self.head(found) * self.scale
        return result


def test_tables_of_tokens_and_scaled_layers_become_int8_on_tflite(tmp_path: Path) -> None:
    torch.manual_seed(0)
    prove(TokenTable().eval(), torch.randint(0, 10, (32, 6)), "int8", "tflite", tmp_path)


class ShiftedTokens(nn.Module):
    """Indices that are computed: numbers of tokens, one further (OPT's positions)."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(12, 8), nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.head(self.table(tokens * 1 + 1))
        return result


def test_indices_that_are_computed_stay_integers_in_int8_on_executorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    prove(ShiftedTokens().eval(), torch.randint(0, 10, (32, 6)), "int8", "executorch", tmp_path)
