"""Sparse weights in Core ML packages: what the file masks is what PyTorch has at zero."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coreml_nets import runtime
from format_nets import block, images, model_in, predicted_size
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.artifact import Check
from edgesdk.compress.fold import folded_weights
from edgesdk.compress.sparsify import sparse_weight
from edgesdk.compressed import CompressedModel
from edgesdk.cost.features import kernel_table
from edgesdk.errors import UnsupportedModel
from edgesdk.parity import sqnr_db
from edgesdk.scheme import Scheme
from edgesdk.target import Emission, find_target
from edgesdk.trace import trace
from edgesdk_coreml.dataflow import Dataflow
from edgesdk_coreml.evaluate import constant_values
from edgesdk_coreml.package import read_program
from edgesdk_coreml.palettes import palettise_layers
from edgesdk_coreml.quantization import (
    constexpr_lut_to_sparse,
    constexpr_sparse_blockwise_shift_scale,
    constexpr_sparse_to_dense,
)
from edgesdk_coreml.zeros import with_zeros

pytestmark = pytest.mark.toolchain

TARGET = find_target("coreml")


def emit(model: CompressedModel, folder: Path, system: str = "iOS18") -> Emission:
    return TARGET.emit(model, runtime("npu", system), folder)


def checks(model: CompressedModel, folder: Path, emission: Emission) -> dict[str, Check]:
    return {check.name: check for check in TARGET.checks(folder, emission, model)}


def failures(model: CompressedModel, folder: Path, emission: Emission) -> dict[str, Check]:
    found = checks(model, folder, emission)
    return {name: check for name, check in found.items() if not check.passed}


def trained_sparse(net: tuple[nn.Module, Tensor]) -> tuple[nn.Module, Tensor]:
    """Return a network whose layers have their zeros already, as training would leave them."""
    for layer in net[0].modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            with torch.no_grad():
                layer.weight.copy_(sparse_weight(layer.weight, axis=0))
    return net


def decoded(folder: Path) -> dict[str, Tensor]:
    """Return the weights of masked operations, by the name of what reads them."""
    program = read_program(folder / "model.mlpackage")
    flow, values = Dataflow(program), constant_values(program)
    found = {}
    for op in flow.weighted():
        decoder = flow.decoder(op, "weight")
        if flow.mask(op) is not None and decoder is not None:
            found[op.name] = values[decoder.name]
    return found


def file_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "layers", "told"),
    [
        (
            "w8_sparse50",
            {},
            "3 in w8, 2 in w8_sparse50 of 5 layers; 3 in w8 instead: stem (its 864",
        ),
        ("lut4_sparse50", {"stem": "fp16"}, "1 in fp16, 2 in lut4, 2 in lut4_sparse50 of 5 layers"),
        ("w8", {"hidden": "lut4_sparse50"}, "1 in lut4_sparse50, 4 in w8 of 5 layers"),
    ],
)
def test_every_layer_is_in_its_scheme_and_its_size_foretold(
    scheme: Scheme, layers: Mapping[str, Scheme], told: str, tmp_path: Path
) -> None:
    net = trained_sparse(images())
    model = model_in(net, scheme, layers)
    emission = emit(model, tmp_path)
    found = checks(model, tmp_path, emission)
    assert [check for check in found.values() if not check.passed] == []
    assert found["precision"].detail.startswith(told)
    assert predicted_size(model, emission, tmp_path, "coreml") == pytest.approx(1, abs=0.003)
    # Zeros that were there before cost nothing: what is lost is what rounding the others loses.
    session = TARGET.open(tmp_path, emission, "mil-evaluator", 1)
    rows = [torch.from_numpy(session.run([row[None].numpy()])[0]) for row in net[1]]
    with torch.no_grad():
        ratio = sqnr_db((net[0](net[1]),), (torch.cat(rows),))
    assert ratio is not None
    assert ratio >= (10 if "lut4" in f"{scheme}{layers}" else 30)


@pytest.mark.slow
def test_the_file_decodes_to_what_pytorch_has_bit_by_bit(tmp_path: Path) -> None:
    net = images()
    with torch.no_grad():  # channels that the batch norm, or the weights, turn off
        net[0].norm.weight[3] = 0
        net[0].down.weight[7] = 0
        net[0].hidden.weight[0, :3] = 1e-9  # zero in float16
    model = model_in(net, "lut4_sparse50")
    emission = emit(model, tmp_path)
    assert failures(model, tmp_path, emission) == {}
    own = with_zeros(model)
    own = replace(own, module=copy.deepcopy(own.module))
    palettise_layers(own)
    weights = {name: layer.weight for name, layer in own.module.named_children()}
    weights |= folded_weights(own.module, own.example_inputs)
    found = decoded(tmp_path)
    assert set(found) == {"down_conv", "hidden_linear"}
    for name, weight in found.items():
        layer = name.rpartition("_")[0]
        assert torch.equal(weight.half(), weights[layer].detach().half()), name
        assert int((weight == 0).sum()) >= weight.numel() // 2


class Upwards(nn.Module):
    """A weight that two layers share, and one whose output channels are its second dimension."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.up = nn.ConvTranspose2d(64, 32, (1, 2), stride=(1, 2))
        self.norm = nn.BatchNorm2d(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(x)))
        result: Tensor = self.norm(self.up(x.mT[:, :, None]))
        return result


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["w8_sparse50", "lut4_sparse50"])
def test_shared_and_transposed_weights_pass(scheme: Scheme, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = model_in((Upwards().eval(), torch.randn(16, 4, 64)), scheme)
    emission = emit(model, tmp_path)
    found = checks(model, tmp_path, emission)
    assert [check for check in found.values() if not check.passed] == []
    assert found["precision"].detail == f"3 in {scheme} of 3 layers"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["w8_sparse50", "lut4_sparse50"])
def test_the_size_of_a_transposed_layer_is_foretold(scheme: Scheme, tmp_path: Path) -> None:
    net = nn.Sequential(nn.ConvTranspose2d(64, 33, 3), nn.BatchNorm2d(33)).eval()
    model = model_in((net, torch.randn(16, 64, 4, 4)), scheme)
    emission = emit(model, tmp_path)
    assert failures(model, tmp_path, emission) == {}
    # 50 bytes of a transposed convolution's own arguments are foretold too many in every scheme.
    assert predicted_size(model, emission, tmp_path, "coreml") == pytest.approx(1, abs=0.005)


class Remembering(nn.Module):
    """Steps of an LSTM, a weight of the model's own, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = nn.LSTM(8, 64, batch_first=True)
        self.own = nn.Parameter(torch.randn(64, 64) / 8)
        self.head = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(nn.functional.linear(self.cells(x)[0][:, -1], self.own).relu())
        return result


@pytest.mark.slow
def test_weights_of_no_layer_that_can_be_sparse_are_stored_whole_and_named(tmp_path: Path) -> None:
    model = model_in((Remembering().eval(), torch.randn(8, 2, 8)), "w8_sparse50")
    emission = emit(model, tmp_path)
    found = checks(model, tmp_path, emission)
    assert [check for check in found.values() if not check.passed] == []
    told = found["precision"].detail
    assert told.startswith(
        "3 in w8, 1 in w8_sparse50 of 4 layers; 3 in w8 instead: cells (zeros are"
    )


@pytest.mark.slow
def test_more_zeros_than_half_are_not_stored_either(tmp_path: Path) -> None:
    net = block()
    with torch.no_grad():
        net[0].up.weight[torch.rand(net[0].up.weight.shape) < 0.8] = 0
    model = model_in(net, "fp16", {"up": "w8_sparse50"})
    emission = emit(model, tmp_path)
    assert failures(model, tmp_path, emission) == {}
    assert predicted_size(model, emission, tmp_path, "coreml") > 1.04


@pytest.fixture(scope="module")
def float_block(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Emission]:
    folder = tmp_path_factory.mktemp("float")
    return folder, emit(model_in(block(), "fp16"), folder)


def compressed_by(original: Path, folder: Path, change: Callable[[Any, Any], Any]) -> None:
    """Save a package as a function of coremltools' compression and the package makes it."""
    import coremltools
    from coremltools.optimize import coreml as compression

    package = coremltools.models.MLModel(str(original / "model.mlpackage"), skip_model_load=True)
    change(compression, package).save(str(folder / "model.mlpackage"))


def thresholds(compression: Any, package: Any) -> Any:
    config = compression.OpThresholdPrunerConfig(threshold=0.06, weight_threshold=0)
    return compression.prune_weights(package, compression.OptimizationConfig(global_config=config))


def rounded_before_masked(compression: Any, package: Any) -> Any:
    config = compression.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", weight_threshold=0
    )
    narrow = compression.linear_quantize_weights(
        package, compression.OptimizationConfig(global_config=config)
    )
    zeros = compression.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)
    return compression.prune_weights(
        narrow, compression.OptimizationConfig(global_config=zeros), joint_compression=True
    )


@pytest.mark.slow
def test_layers_that_coremltools_leaves_dense_without_a_word_are_named(
    float_block: tuple[Path, Emission], tmp_path: Path
) -> None:
    original, emission = float_block
    compressed_by(original, tmp_path, thresholds)
    # It masks layers of which half the weights lie below a threshold, and skips all others.
    told = failures(model_in(block(), "w8_sparse50"), tmp_path, emission)["precision"].detail
    assert "down_linear is float16_sparse50" in told
    assert "up_linear is fp16" in told


@pytest.mark.slow
def test_masks_over_what_is_rounded_already_are_others(
    float_block: tuple[Path, Emission], tmp_path: Path
) -> None:
    original, emission = float_block
    compressed_by(original, tmp_path, rounded_before_masked)
    # Many integers are equally small, and coremltools masks all that are as small as the median, in
    # the whole layer: other weights than the smaller half of each channel.
    failed = failures(model_in(block(), "w8_sparse50"), tmp_path, emission)
    assert "does not hold the weights of layer 'up'" in failed["weights"].detail


@pytest.mark.slow
def test_another_mask_weight_or_scheme_fails(tmp_path: Path) -> None:
    model = model_in(block(), "w8_sparse50")
    emission = emit(model, tmp_path)
    other = copy.deepcopy(model.module)
    with torch.no_grad():
        order = other.down.weight[0].abs().argsort()
        other.down.weight[0, order[[0, -1]]] = other.down.weight[0, order[[-1, 0]]].clone()
    failed = failures(replace(model, module=other), tmp_path, emission)
    assert "down_linear does not hold the weights of layer 'down'" in failed["weights"].detail
    assert "up_linear is w8_sparse50" in (
        failures(replace(model, scheme="w8"), tmp_path, emission)["precision"].detail
    )
    assert "up_linear is w8_sparse50" in (
        failures(replace(model, scheme="lut4_sparse50"), tmp_path, emission)["precision"].detail
    )


@pytest.mark.slow
def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        emit(model_in(block(), "lut4_sparse50", {"down": "w8_sparse50"}), tmp_path / name)
    files = [
        sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in ("one", "two")
    ]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    reason = "w8_sparse50 weights need iOS 18 or macOS 15, not iOS17"
    with pytest.raises(UnsupportedModel, match=reason):
        emit(model_in(block(), "w8_sparse50"), tmp_path, "iOS17")
    with pytest.raises(UnsupportedModel, match="layer 'head' cannot be w8_sparse50: its 240 weig"):
        emit(model_in(block(), "fp16", {"head": "w8_sparse50"}), tmp_path)
    empty = block()
    with torch.no_grad():
        empty[0].up.weight.zero_()
    with pytest.raises(UnsupportedModel, match="layer 'up' holds nothing but zeros in float16"):
        emit(model_in(empty, "lut4_sparse50"), tmp_path)


def test_nothing_promises_that_zeros_are_skipped() -> None:
    net, samples = block()
    graph = trace(net, (samples[:1],), name="block")
    tables = {scheme: kernel_table(graph, scheme) for scheme in ("fp16", "w8_sparse50")}
    assert np.array_equal(tables["fp16"].weight_bytes, tables["w8_sparse50"].weight_bytes)
    skipping = kernel_table(graph, "w8_sparse50", skips_zeros=True)
    assert skipping.weight_bytes.sum() < 0.4 * tables["fp16"].weight_bytes.sum()
    profile = runtime("npu", "iOS18")
    assert not profile.skips_zeros
    assert not replace(profile, sparse_kernels=("2:4",)).skips_zeros
    assert replace(profile, sparse_kernels=("unstructured",)).skips_zeros


# The three decoders, against coremltools' own.


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3),
    st.sampled_from([1, 2, 4, 6, 8]),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_sparse_weights_decode_as_coremltools_decodes_them(
    parts: list[tuple[int, int]], bits: int, seed: int
) -> None:
    from coremltools.converters.mil.mil.ops.defs.iOS18 import compression as reference

    random = np.random.default_rng(seed)
    shape, groups = [a * b for a, b in parts], [a for a, _ in parts]
    mask = random.integers(0, 2, shape).astype(np.uint8)
    integers = random.integers(-127, 128, int(mask.sum())).astype(np.int8)
    scale = random.normal(size=groups).astype(np.float32)
    places = random.integers(0, 2**bits, int(mask.sum())).astype(np.uint8)
    table = random.normal(size=(*groups, 2**bits, 1)).astype(np.float32)
    cases = (
        (reference.constexpr_sparse_blockwise_shift_scale, (integers, scale, None)),
        (reference.constexpr_lut_to_sparse, (places, table, None)),
    )
    for kind, (vector, beside, nothing) in cases:
        ours = (
            constexpr_lut_to_sparse if vector is places else constexpr_sparse_blockwise_shift_scale
        )
        wanted = kind.decompress(mask, vector, beside, nothing)
        found = ours(*map(torch.from_numpy, (mask, vector, beside)))
        assert np.array_equal(found[0].numpy(), wanted[0])
        assert np.array_equal(found[1].numpy(), wanted[1])
        dense = reference.constexpr_sparse_to_dense.decompress(wanted[1], mask)
        assert np.array_equal(constexpr_sparse_to_dense(found[1], found[0]).numpy(), dense)


@pytest.mark.parametrize(("values", "mask"), [(2, (1, 0, 0)), (1, (1, 1, 0)), (1, (2, 0, 0))])
def test_masks_that_do_not_fit_are_damage(values: int, mask: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"{values}\\] values for a mask of "):
        constexpr_sparse_to_dense(torch.ones(values), torch.tensor(mask, dtype=torch.uint8))
