import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import UnsupportedModel, UsageError
from edgesdk.graph import OpGraph
from edgesdk.layer_format import (
    FALLBACKS,
    WEIGHTED_KINDS,
    Weighted,
    fallback_refusal,
    layer_format,
    name_exceptions,
    op_formats,
    require_formats,
)
from edgesdk.scheme import ACTIVATION_BYTES, SCHEMES, WEIGHT_BYTES, Scheme, coarsest
from edgesdk.trace import trace


def graph() -> OpGraph:
    import torch
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, groups=32), nn.Flatten(), nn.Linear(512, 24),
        nn.Linear(24, 5),
    )  # fmt: skip
    return trace(net.eval(), (torch.zeros(1, 3, 8, 8),), name="net")


def schemes_of(target: str, scheme: Scheme, layers: dict[str, Scheme] | None = None) -> list[str]:
    return [found.scheme for found in op_formats(graph(), target, scheme, layers or {}).values()]


def test_every_scheme_has_its_bytes() -> None:
    assert set(WEIGHT_BYTES) == set(ACTIVATION_BYTES) == set(SCHEMES)


@pytest.mark.parametrize(
    ("target", "scheme", "wanted"),
    [
        ("executorch", "int8", ["int8", "int8", "int8", "int8"]),
        ("executorch", "int8_dynamic", ["int8_dynamic", "fp32", "int8_dynamic", "int8_dynamic"]),
        ("executorch", "int4_dynamic", ["int8_dynamic", "fp32", "int4_dynamic", "int8_dynamic"]),
        ("tflite", "int8_dynamic", ["int8_dynamic"] * 4),
        ("tflite", "int4_dynamic", ["int8_dynamic"] * 2 + ["int4_dynamic", "int8_dynamic"]),
        ("coreml", "w4", ["w8", "w8", "w4", "w8"]),
        ("coreml", "lut4", ["lut4"] * 4),
        ("coreml", "lut8", ["lut8", "fp16", "lut8", "fp16"]),
        ("coreml", "w8_sparse50", ["w8", "w8", "w8_sparse50", "w8"]),
        ("coreml", "lut4_sparse50", ["lut4", "lut4", "lut4_sparse50", "lut4"]),
        ("somebody_else", "w4", ["w4"] * 4),
    ],
)
def test_layers_get_what_their_target_can(target: str, scheme: Scheme, wanted: list[str]) -> None:
    assert schemes_of(target, scheme) == wanted


def test_a_layer_of_its_own_scheme() -> None:
    found = schemes_of("tflite", "int8", {"0": "fp32", "3": "int4_dynamic"})
    assert found == ["fp32", "int8", "int4_dynamic", "int8"]


def test_a_scheme_that_a_layer_cannot_have_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModel, match="layer '4' cannot be int4_dynamic: its 24 inputs"):
        require_formats(graph(), "tflite", "int8", {"4": "int4_dynamic"})
    with pytest.raises(UsageError, match="unknown layer 'head'"):
        require_formats(graph(), "tflite", "int8", {"head": "fp32"})
    require_formats(graph(), "tflite", "int4_dynamic", {"4": "int8_dynamic"})


def test_what_cannot_be_is_told() -> None:
    formats = op_formats(graph(), "executorch", "int4_dynamic", {})
    told = name_exceptions(formats.items())
    assert "1 in fp32 instead: conv2d_1 (int4 weights are for linear layers there)" in told
    assert "2 in int8_dynamic instead" in told
    assert name_exceptions(op_formats(graph(), "tflite", "int8", {}).items()) == ""


def test_a_device_must_know_what_some_layers_then_get() -> None:
    assert fallback_refusal("int4_dynamic", ["fp32", "int4_dynamic"])
    assert fallback_refusal("int4_dynamic", ["int8_dynamic"]) is None
    assert fallback_refusal("int8", ["fp32"]) is None


def test_noise_is_judged_by_the_coarsest() -> None:
    assert coarsest(["int8", "fp32"]) == "int8"
    assert coarsest(["int8", "int4_dynamic", "fp32"]) == "int4_dynamic"


@given(
    st.sampled_from(["executorch", "tflite", "coreml"]),
    st.sampled_from(sorted(WEIGHTED_KINDS)),
    st.integers(1, 100),
    st.integers(1, 100),
    st.sampled_from(SCHEMES),
)
def test_a_layer_either_gets_what_was_asked_or_there_is_a_reason(
    target: str, kind: str, outputs: int, inputs: int, asked: Scheme
) -> None:
    layer = Weighted(kind=kind, shape=(outputs, inputs))
    found = layer_format(target, layer, asked)
    assert (found.scheme == asked) == (not found.reason)
    # What it gets instead needs no second look.
    again = layer_format(target, layer, found.scheme)
    assert again.scheme == found.scheme
    assert found.scheme in {asked, FALLBACKS.get(asked), "fp32"}
