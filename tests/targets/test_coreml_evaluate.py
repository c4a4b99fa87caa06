"""The evaluator of ML programs: every operation it knows, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from coreml_nets import compressed, runtime
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.compressed import CompressedModel
from edgesdk.errors import ArtifactError, UnsupportedModel, UsageError
from edgesdk.task import InputSpec, OutputSpec
from edgesdk_coreml import TARGET
from edgesdk_coreml.elementwise import cast, inverse
from edgesdk_coreml.evaluate import OPERATIONS, evaluator, load_program, refuse_unknown
from edgesdk_coreml.layers import avg_pool, conv, conv_transpose, scaled_dot_product_attention
from edgesdk_coreml.package import Operation, Program, Value, read_program
from edgesdk_coreml.quantization import (
    constexpr_blockwise_shift_scale,
    dequantize,
    quantize,
)
from edgesdk_coreml.shapes import (
    concat,
    cumsum,
    gather,
    gather_along_axis,
    gather_nd,
    pad,
    reduce_argmax,
    slice_by_index,
    split,
)

_G = torch.Generator().manual_seed(0)
_KERNEL = torch.randn(6, 4, 3, 3, generator=_G) * 0.2
_UP = torch.randn(4, 3, 3, 3, generator=_G) * 0.2
_GROUPED = torch.randn(4, 2, 3, generator=_G) * 0.3
_CHANNELS = torch.rand(4, generator=_G) + 0.2
_TABLE = torch.randn(10, 5, generator=_G)
_MATRIX = torch.randn(3, 8, generator=_G)

# What PyTorch computes, and the MIL operation that it becomes.
EXPRESSIONS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "abs": (torch.abs, "abs"),
    "adaptive_pool": (lambda x: F.adaptive_avg_pool2d(x, 4), "avg_pool"),
    "add": (lambda x: x + 0.3, "add"),
    "argmax": (lambda x: x.argmax(1), "reduce_argmax"),
    "amax": (lambda x: x.amax((2, 3)), "reduce_max"),
    "amin": (lambda x: x.amin(1, keepdim=True), "reduce_min"),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), "matmul"),
    "average": (lambda x: F.avg_pool2d(x, 3, 2, 1), "avg_pool"),
    "average_inside": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), "avg_pool"),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "upsample_bilinear"),
    "cat": (lambda x: torch.cat([x, x * 2], 1), "concat"),
    "clamp": (lambda x: x.clamp(-0.5, 0.7), "clip"),
    "conv1d": (lambda x: F.conv1d(x[:, :, 0], _GROUPED, groups=2), "conv"),
    "conv2d": (lambda x: F.conv2d(x, _KERNEL, stride=2, padding=1), "conv"),
    "conv2d_same": (lambda x: F.conv2d(x, _KERNEL, padding="same", dilation=2), "conv"),
    "conv_transpose": (
        lambda x: F.conv_transpose2d(x, _UP, stride=2, padding=1, output_padding=1),
        "conv_transpose",
    ),
    "divide": (lambda x: x / (x * x + 1), "real_div"),
    "elu": (F.elu, "elu"),
    "embedding": (lambda x: F.embedding(x[:, 0, 0].argmax(-1), _TABLE), "gather"),
    "equal": (lambda x: torch.where(F.relu(x) == 0, x, 0.5), "equal"),
    "erf": (torch.erf, "erf"),
    "exp": (torch.exp, "exp"),
    "flatten": (lambda x: x.flatten(1), "reshape"),
    "gelu": (F.gelu, "gelu"),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), "gelu"),
    "group_norm": (lambda x: F.group_norm(x, 2), "reduce_mean"),
    "hardsigmoid": (F.hardsigmoid, "sigmoid_hard"),
    "hardswish": (F.hardswish, "thresholded_relu"),
    "index": (lambda x: x[:, torch.tensor([2, 0])], "gather"),
    "cos": (torch.cos, "cos"),
    "counted": (lambda x: F.embedding((x[:, 0, 0] > 0).cumsum(1), _TABLE), "gather"),
    "cumsum": (lambda x: x.cumsum(2), "cumsum"),
    "gather": (lambda x: x.gather(1, x[:, :2].argmax(1, keepdim=True)), "gather_along_axis"),
    "sin": (torch.sin, "sin"),
    "index_pairs": (lambda x: x[torch.tensor([[0]]), torch.tensor([2, 0])], "gather_nd"),
    "instance_norm": (F.instance_norm, "instance_norm"),
    "layer_norm": (lambda x: F.layer_norm(x, (8,)), "layer_norm"),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), "leaky_relu"),
    "linear": (lambda x: F.linear(x, _MATRIX), "linear"),
    "log": (lambda x: torch.log(x * x + 1), "log"),
    "max_pool": (lambda x: F.max_pool2d(x, 2), "max_pool"),
    "max_pool_ceil": (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), "max_pool"),
    "maximum": (lambda x: torch.maximum(x, x.mean(1, keepdim=True)), "maximum"),
    "mean_of_all": (lambda x: x.mean().reshape(1), "reduce_mean"),
    "minimum": (lambda x: torch.minimum(x, x * 2), "minimum"),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), "upsample_nearest_neighbor"),
    "norm": (lambda x: x.norm(dim=1), "reduce_l2_norm"),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1)), "pad"),
    "pad_reflect": (lambda x: F.pad(x, (1, 1, 2, 1), mode="reflect"), "pad"),
    "permute": (lambda x: x.permute(0, 2, 3, 1), "transpose"),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), "pixel_shuffle"),
    "power": (lambda x: (x.abs() + 0.1) ** 1.5, "pow"),
    "prelu": (lambda x: F.prelu(x, _CHANNELS), "prelu"),
    "relu": (F.relu, "relu"),
    "relu6": (F.relu6, "relu6"),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), "tile"),
    "rsqrt": (lambda x: (x * x + 1).rsqrt(), "rsqrt"),
    "select": (lambda x: x[:, :, -1], "slice_by_index"),
    "sigmoid": (torch.sigmoid, "sigmoid"),
    "silu": (F.silu, "silu"),
    "slice": (lambda x: x[:, 1:3, ::2], "slice_by_index"),
    "softmax": (lambda x: F.softmax(x, 1), "softmax"),
    "softplus": (F.softplus, "softplus"),
    "split": (lambda x: torch.split(x, [1, 3], 1)[1], "split"),
    "sqrt": (lambda x: x.abs().sqrt(), "sqrt"),
    "square": (lambda x: x.var(1), "square"),
    "squeeze": (lambda x: x[:, :1].squeeze(1), "squeeze"),
    "stack": (lambda x: torch.stack([x, x + 1], 1), "stack"),
    "subtract": (lambda x: 1 - x, "sub"),
    "sum": (lambda x: x.sum(1), "reduce_sum"),
    "tanh": (torch.tanh, "tanh"),
    "times": (lambda x: x * x.sum(1, keepdim=True), "mul"),
    "unsqueeze": (lambda x: x.unsqueeze(1), "expand_dims"),
    "where_and": (lambda x: torch.where(torch.logical_and(x > 0, x <= 1), x, 2.0), "logical_and"),
    "where_not": (lambda x: torch.where(torch.logical_not(F.relu(x) != 0), x, -x), "not_equal"),
    "where_or": (lambda x: torch.where(torch.logical_or(x < -1, x >= 1), 3.0, x), "logical_or"),
}

# Reached by other tests of this file or by the networks of the other ones.
ELSEWHERE = {
    "batch_norm",
    "cast",
    "constexpr_affine_dequantize",
    "constexpr_blockwise_shift_scale",
    "constexpr_lut_to_dense",
    "constexpr_lut_to_sparse",
    "constexpr_sparse_blockwise_shift_scale",
    "constexpr_sparse_to_dense",
    "dequantize",
    "inverse",
    "quantize",
    "scaled_dot_product_attention",
}


class Every(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(expression(x) for expression, _ in EXPRESSIONS.values())


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("every")
    model = CompressedModel(
        module=Every(),
        example_inputs=(torch.randn(1, 4, 8, 8, generator=_G),),
        scheme="fp32",
        calibration=(),
        inputs=(InputSpec(name="x"),),
        outputs=tuple(OutputSpec(name=f"out_{name}") for name in EXPRESSIONS),
    )
    TARGET.emit(model, runtime(), folder)
    return folder / "model.mlpackage"


@pytest.fixture(scope="module")
def results(every: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    data = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    given = load_program(every)([data.numpy()])
    wanted = [output.numpy() for output in Every()(data)]
    return {name: pair for name, *pair in zip(EXPRESSIONS, given, wanted, strict=True)}


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_evaluates_as_pytorch_computes_it(results, name: str) -> None:
    given, wanted = results[name]
    assert given.shape == wanted.shape
    assert np.abs(given - wanted).max() < 2e-6 * max(1.0, np.abs(wanted).max())


@pytest.mark.toolchain
@pytest.mark.slow
def test_every_operation_of_the_table_is_tested(every: Path) -> None:
    kinds = {op.kind for op in read_program(every).operations}
    assert {kind for _, kind in EXPRESSIONS.values()} <= kinds
    assert set(OPERATIONS) - kinds <= ELSEWHERE


@pytest.mark.toolchain
@pytest.mark.slow
def test_results_are_rounded_to_what_the_program_declares(tmp_path: Path) -> None:
    model = compressed("perceptron", "fp16")
    TARGET.emit(model, runtime(), tmp_path)
    run = load_program(tmp_path / "model.mlpackage")
    (given,) = run([model.example_inputs[0].numpy()])
    assert given.dtype == np.float32
    assert np.array_equal(given, given.astype(np.float16).astype(np.float32))


@pytest.mark.toolchain
@pytest.mark.slow
def test_arrays_of_another_shape_or_type_are_refused(tmp_path: Path) -> None:
    model = compressed("perceptron", "fp16")
    TARGET.emit(model, runtime(), tmp_path)
    run = load_program(tmp_path / "model.mlpackage")
    for wrong in ([], [np.zeros((2, 20), np.float32)], [np.zeros((1, 20))]):
        with pytest.raises(UsageError, match="float32"):
            run(wrong)


def program_of(*operations: Operation, constants: dict | None = None) -> Program:
    x = Value(name="x", dtype="float32", shape=(4,))
    y = Value(name="y", dtype="float32", shape=(4,))
    return Program(
        operations=operations,
        constants=constants or {},
        inputs=(x,),
        outputs=("y",),
        input_features=(x,),
        output_features=(y,),
        opset="CoreML7",
        specification_version=8,
        metadata={},
    )


def operation(kind: str, shape: tuple[int, ...] = (4,), **arguments: tuple) -> Operation:
    y = Value(name="y", dtype="float32", shape=shape)
    return Operation(kind=kind, name="y", arguments=arguments, outputs=(y,))


def test_an_unknown_operation_or_argument_is_named() -> None:
    with pytest.raises(UnsupportedModel, match="'lstm'"):
        evaluator(program_of(operation("lstm")))
    with pytest.raises(UnsupportedModel, match=r"'relu'.*slope"):
        refuse_unknown([operation("relu", slope=(np.float32(1),))])


def test_a_program_that_contradicts_itself_is_damaged() -> None:
    ones = (np.ones(4, np.float32),)
    with pytest.raises(ArtifactError, match="shape"):
        evaluator(program_of(operation("relu", (5,), x=ones)))([np.ones(4, np.float32)])
    with pytest.raises(ArtifactError, match="cannot be computed"):
        evaluator(program_of(operation("conv", x=ones, weight=ones)))([np.ones(4, np.float32)])


# Against PyTorch's own quantization and by the definitions in MIL's documentation.


@settings(max_examples=50, deadline=None)
@given(scale=st.floats(1e-3, 10), zero_point=st.integers(-128, 127), seed=st.integers(0, 2**32 - 1))
def test_quantize_is_pytorchs(scale: float, zero_point: int, seed: int) -> None:
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed)) * 20
    steps = quantize(x, scale, "int8", zero_point)
    wanted = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, -128, 127)
    assert torch.allclose(dequantize(steps, scale, zero_point), wanted, rtol=1e-5, atol=1e-5)
    assert steps.min() >= -128
    assert steps.max() <= 127


def test_quantize_along_an_axis() -> None:
    x = torch.tensor([[1.0, -1.0], [3.0, 400.0]])
    scale, zero = torch.tensor([0.5, 1.0]), torch.tensor([3, 5], dtype=torch.uint8)
    steps = quantize(x, scale, "uint8", zero, axis=0)
    assert steps.tolist() == [[5, 1], [8, 255]]
    assert dequantize(steps, scale, zero, axis=0).tolist() == [[1, -1], [3, 250]]


def test_blocks_of_weights_share_a_scale() -> None:
    data = torch.tensor([[1, 2, 3, 4]], dtype=torch.int8)
    scale = torch.tensor([[1.0, 10.0]])
    assert constexpr_blockwise_shift_scale(data, scale).tolist() == [[1, 2, 30, 40]]
    offset = torch.tensor([[1, 0]], dtype=torch.int8)
    assert constexpr_blockwise_shift_scale(data, scale, offset).tolist() == [[0, 1, 30, 40]]


def test_attention_of_ios_18_is_pytorchs_with_either_mask() -> None:
    query, key, value = (torch.randn(2, 3, 5, 4, generator=_G) for _ in range(3))
    open_ = torch.rand(5, 5, generator=_G) > 0.3
    open_.fill_diagonal_(True)
    scores = query @ key.mT / 2
    wanted = scores.masked_fill(~open_, -torch.inf).softmax(-1) @ value
    found = scaled_dot_product_attention(query, key, value, open_)
    assert torch.allclose(found, wanted, atol=1e-6)
    added = torch.zeros(5, 5).masked_fill(~open_, -1e4)
    assert torch.allclose(scaled_dot_product_attention(query, key, value, added), wanted, atol=1e-6)
    plain = scores.softmax(-1) @ value
    assert torch.allclose(scaled_dot_product_attention(query, key, value), plain, atol=1e-6)


def test_same_padding_puts_the_odd_column_where_it_says() -> None:
    x, weight = torch.tensor([[[1.0, 2, 3, 4]]]), torch.tensor([[[1.0, 10.0]]])
    assert conv(x, weight, pad_type="same").tolist() == [[[21, 32, 43, 4]]]
    assert conv(x, weight, pad_type="same_lower").tolist() == [[[10, 21, 32, 43]]]


def test_what_no_emission_has_is_refused() -> None:
    x = torch.ones(1, 1, 4)
    with pytest.raises(UnsupportedModel, match="one side"):
        avg_pool(x, [2], pad_type="same")
    with pytest.raises(UnsupportedModel, match="pad_type"):
        conv_transpose(x, torch.ones(1, 1, 2), pad_type="same")
    with pytest.raises(UnsupportedModel, match="reflect"):
        pad(x, [1, 0, 0, 0, 1, 1], mode="reflect")
    with pytest.raises(UnsupportedModel, match="batch_dims"):
        gather(x, [0], batch_dims=1)
    with pytest.raises(UnsupportedModel, match="batch_dims"):
        gather_nd(x, [[0]], batch_dims=1)
    with pytest.raises(UnsupportedModel, match="reverse"):
        cumsum(x, reverse=True)


def test_values_are_joined_in_turn_and_indices_fit_their_type() -> None:
    x, y = torch.tensor([[1, 2]]), torch.tensor([[3, 4]])
    assert concat([x, y], 1, interleave=True).tolist() == [[1, 3, 2, 4]]
    assert concat([x, y], 0, interleave=True).tolist() == [[1, 2], [3, 4]]
    stored = torch.tensor([[5, 6]], dtype=torch.uint16)
    assert gather_along_axis(stored, torch.tensor([[-1, 0]]), axis=1).tolist() == [[6, 5]]
    assert cast(torch.tensor([0.0, 65535.0]), "uint16").tolist() == [0, 65535]
    with pytest.raises(ValueError, match="uint16"):
        cast(torch.tensor([-1.0]), "uint16")


def test_defaults_are_mils() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert slice_by_index(x, [0, -1], [2, 0], squeeze_mask=[False, True]).tolist() == [2, 5]
    assert [part.shape[1] for part in split(x, axis=1, num_splits=3)] == [1, 1, 1]
    assert reduce_argmax(x).shape == (2, 1)
    assert gather(x, [-1, 0]).tolist() == [[3, 4, 5], [0, 1, 2]]
    assert inverse(torch.tensor([1.0, 0.0]), epsilon=1.0).tolist() == [0.5, 1]
