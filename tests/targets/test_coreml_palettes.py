"""Palettised weights in Core ML packages: what the file decodes to is what PyTorch has."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coreml_nets import runtime
from format_nets import block, images, model_in
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.artifact import Check
from edgesdk.compress.fold import folded_weights
from edgesdk.compressed import CompressedModel
from edgesdk.errors import ArtifactError, UnsupportedModel
from edgesdk.target import Emission, find_target
from edgesdk_coreml.blobs import stored_bytes, unpack
from edgesdk_coreml.dataflow import Dataflow
from edgesdk_coreml.evaluate import constant_values
from edgesdk_coreml.package import Operation, read_program
from edgesdk_coreml.palettes import palettise_layers
from edgesdk_coreml.quantization import constexpr_lut_to_dense

pytestmark = pytest.mark.toolchain

TARGET = find_target("coreml")
SYSTEMS = ("iOS16", "iOS18")


def emit(model: CompressedModel, folder: Path, system: str = "iOS17") -> Emission:
    return TARGET.emit(model, runtime("npu", system), folder)


def failures(model: CompressedModel, folder: Path, emission: Emission) -> dict[str, Check]:
    checks = TARGET.checks(folder, emission, model)
    return {check.name: check for check in checks if not check.passed}


def decoders(folder: Path) -> dict[str, Operation]:
    """Return what decodes a weight, by the name of the operation that reads it."""
    flow = Dataflow(read_program(folder / "model.mlpackage"))
    found = {op.name: flow.decoder(op, "weight") for op in flow.weighted()}
    return {name: decoder for name, decoder in found.items() if decoder is not None}


def decoded(folder: Path) -> dict[str, Tensor]:
    values = constant_values(read_program(folder / "model.mlpackage"))
    return {name: values[op.name] for name, op in decoders(folder).items()}


def palettised(model: CompressedModel) -> CompressedModel:
    own = replace(model, module=copy.deepcopy(model.module))
    palettise_layers(own)
    return own


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_file_decodes_to_what_pytorch_has_bit_by_bit(system: str, tmp_path: Path) -> None:
    net = images()
    with torch.no_grad():  # channels that the batch norm, or the weights, turn off
        net[0].norm.weight[3] = 0
        net[0].down.weight[7] = 0
        net[0].norm.weight[4] *= -1
    model = model_in(net, "lut4")
    emission = emit(model, tmp_path, system)
    assert failures(model, tmp_path, emission) == {}
    own = palettised(model).module
    weights = {name: layer.weight for name, layer in own.named_children()}
    weights |= folded_weights(own, model.example_inputs)
    found = decoded(tmp_path)
    assert set(found) == {
        "stem_conv",
        "down_conv",
        "depthwise_conv",
        "hidden_linear",
        "head_linear",
    }
    for name, weight in found.items():
        layer = name.rpartition("_")[0]
        assert torch.equal(weight.half(), weights[layer].detach().half()), name
        assert len(weight.unique()) <= 16
    (first, *_) = decoders(tmp_path).values()
    form = {"indices", "lut", "shape"} if system == "iOS16" else {"indices", "lut"}
    assert set(first.arguments) == form


class Tied(nn.Module):
    """Two layers of one weight, a factor for each channel behind a convolution, and one upwards."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        self.second.weight = self.first.weight
        self.conv = nn.Conv1d(8, 24, 3, padding=1)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 24)[None, :, None])
        self.up = nn.ConvTranspose2d(24, 12, (1, 2), stride=(1, 2))
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(self.second(torch.relu(self.first(x)))) * self.scale)
        result: Tensor = self.norm(self.up(x.unsqueeze(2)))
        return result


@pytest.mark.slow
def test_shared_scaled_and_transposed_weights_pass(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = model_in((Tied().eval(), torch.randn(16, 8, 32)), "lut6")
    emission = emit(model, tmp_path)
    assert failures(model, tmp_path, emission) == {}


@pytest.fixture(scope="module")
def float_block(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Emission]:
    folder = tmp_path_factory.mktemp("float")
    return folder, emit(model_in(block(), "fp16"), folder, "iOS18")


def grouped(original: Path, folder: Path) -> None:
    """Save a package with a table for each 16 output channels, as coremltools makes it."""
    import coremltools
    from coremltools.optimize import coreml as compression

    package = coremltools.models.MLModel(str(original / "model.mlpackage"), skip_model_load=True)
    config = compression.OpPalettizerConfig(
        nbits=4, granularity="per_grouped_channel", group_size=16, weight_threshold=0
    )
    compressed = compression.palettize_weights(
        package, compression.OptimizationConfig(global_config=config)
    )
    compressed.save(str(folder / "model.mlpackage"))


@pytest.mark.slow
def test_a_layer_that_coremltools_leaves_out_without_a_word_fails(
    float_block: tuple[Path, Emission], tmp_path: Path
) -> None:
    original, emission = float_block
    grouped(original, tmp_path)
    # 24 and 10 output channels do not divide by 16, so two layers are still float16.
    assert set(decoders(tmp_path)) == {"query_linear", "up_linear", "down_linear"}
    failed = failures(model_in(block(), "lut4"), tmp_path, emission)
    told = failed["precision"].detail
    assert "2 in fp16, 3 in lut4 of 5 layers" in told
    assert "narrow_linear is fp16, head_linear is fp16" in told
    # Nor are several tables what was promised: fewer values than they have are nearest.
    assert "does not hold the weights" in failed["weights"].detail


@pytest.mark.slow
def test_several_tables_decode_as_coremltools_decodes_them(
    float_block: tuple[Path, Emission], tmp_path: Path
) -> None:
    from coremltools.optimize._utils import lut_to_dense

    grouped(float_block[0], tmp_path)
    program = read_program(tmp_path / "model.mlpackage")
    found = decoded(tmp_path)
    for name, decoder in decoders(tmp_path).items():
        places, table = program.constant(decoder, "indices"), program.constant(decoder, "lut")
        assert places is not None
        assert table is not None
        assert table.shape[0] == places.shape[0] // 16
        assert np.array_equal(found[name].numpy(), lut_to_dense(places, table).astype(np.float32))


@pytest.mark.slow
def test_another_table_or_none_than_the_best_fails(tmp_path: Path) -> None:
    model = model_in(block(), "lut4")
    emission = emit(model, tmp_path)
    other = copy.deepcopy(model.module)
    with torch.no_grad():
        other.down.weight[0, 0] += 1
    failed = failures(replace(model, module=other), tmp_path, emission)
    assert "down_linear does not hold the weights of layer 'down'" in failed["weights"].detail
    wide = failures(replace(model, scheme="lut6"), tmp_path, emission)
    assert "up_linear is lut4" in wide["precision"].detail
    narrow = failures(replace(model, scheme="w8"), tmp_path, emission)
    assert "up_linear is lut4" in narrow["precision"].detail


@pytest.mark.slow
def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        emit(model_in(block(), "lut6", {"up": "lut4", "down": "w8"}), tmp_path / name)
    files = [
        sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in ("one", "two")
    ]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


@pytest.mark.slow
def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="lut4 weights need iOS 16 or macOS 13, not iOS15"):
        emit(model_in(images(), "lut4"), tmp_path, "iOS15")
    with pytest.raises(UnsupportedModel, match="layer 'head' cannot be lut8: its 240 weights are"):
        emit(model_in(block(), "fp16", {"head": "lut8"}), tmp_path)
    small = nn.Linear(3, 3).eval(), torch.randn(16, 3)
    with pytest.raises(UnsupportedModel, match="no layer of the model can be lut4"):
        emit(model_in(small, "lut4"), tmp_path)
    huge = block()
    with torch.no_grad():
        huge[0].up.weight[1, 2] = 1e6
    with pytest.raises(UnsupportedModel, match="not finite in float16"):
        emit(model_in(huge, "lut4"), tmp_path)


# Both forms of constexpr_lut_to_dense, against coremltools' own.


@given(
    st.sampled_from([1, 2, 4, 6, 8]),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_packed_places_decode_as_coremltools_decodes_them(
    bits: int, shape: list[int], seed: int
) -> None:
    from coremltools.converters.mil.mil.ops.defs.iOS16.constexpr_ops import (
        constexpr_lut_to_dense as reference,
    )
    from coremltools.optimize._utils import pack_elements_into_bits

    random = np.random.default_rng(seed)
    places = random.integers(0, 2**bits, shape).astype(np.uint8)
    table = random.normal(size=2**bits).astype(np.float32)
    packed = pack_elements_into_bits(places, bits)
    wanted = reference.decompress(table, packed, np.array(shape, np.uint32))
    found = constexpr_lut_to_dense(torch.from_numpy(packed), torch.from_numpy(table), shape)
    assert np.array_equal(found.numpy(), wanted)
    if bits < 8:
        unpacked = unpack(packed.tobytes(), f"uint{bits}", tuple(shape))
        assert np.array_equal(unpacked, places)
        assert stored_bytes(f"uint{bits}", places.size) == packed.size


@given(
    st.sampled_from([1, 2, 3, 4, 6, 8]),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_groups_with_tables_decode_as_coremltools_decodes_them(
    bits: int, parts: list[tuple[int, int]], seed: int
) -> None:
    from coremltools.optimize._utils import lut_to_dense

    random = np.random.default_rng(seed)
    shape, groups = [a * b for a, b in parts], [a for a, _ in parts]
    places = random.integers(0, 2**bits, shape).astype(np.uint8)
    table = random.normal(size=(*groups, 2**bits, 1)).astype(np.float32)
    found = constexpr_lut_to_dense(torch.from_numpy(places), torch.from_numpy(table))
    assert np.array_equal(found.numpy(), lut_to_dense(places, table))


@pytest.mark.parametrize(
    ("indices", "lut", "shape"),
    [
        ((2, 3), (1, 1, 5, 1), None),  # no power of two
        ((2, 3), (1, 1, 4, 2), None),  # vectors
        ((2, 3), (2, 2, 4, 1), None),  # three columns for two tables
        ((2, 3), (0, 1, 4, 1), None),
        ((2, 3), (1, 4, 1), None),
        ((3,), (4,), [20]),  # three bytes for twenty places of two bits
        ((3,), (4,), [2**31, 2**31]),
        ((3,), (5,), [12]),
        ((3,), (1,), [12]),
    ],
)
def test_tables_that_do_not_fit_are_damage(
    indices: tuple[int, ...], lut: tuple[int, ...], shape: list[int] | None
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - becomes an ArtifactError, as the next test shows
        constexpr_lut_to_dense(torch.zeros(indices, dtype=torch.uint8), torch.zeros(lut), shape)


@pytest.mark.slow
def test_a_damaged_table_is_told(tmp_path: Path) -> None:
    from edgesdk_coreml.package import SPECIFICATION, read_specification

    model = model_in(block(), "lut4")
    emission = emit(model, tmp_path)
    package = tmp_path / "model.mlpackage"
    specification = read_specification(package)
    function = specification.mlProgram.functions["main"]
    for op in function.block_specializations[function.opset].operations:
        if op.type == "constexpr_lut_to_dense":
            sizes = op.attributes["shape"].immediateValue.tensor
            sizes.bytes.values = b"\x07" + bytes(sizes.bytes.values)[1:]
            break
    (package / SPECIFICATION).write_bytes(specification.SerializeToString(deterministic=True))
    assert set(failures(model, tmp_path, emission)) == {"package opens"}
    with pytest.raises(ArtifactError, match="cannot be computed as the file states it"):
        constant_values(read_program(package))
