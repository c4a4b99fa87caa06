import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgesdk_tflite.attribution import (
    Floats,
    is_scaled,
    layer_of_kernel,
    linear_weights,
    scaled_to,
)


def drawn(seed: int, rows: int = 12, columns: int = 32) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


@given(seed=st.integers(0, 1000))
def test_a_factor_of_each_row_and_column_keeps_the_layer(seed: int) -> None:
    weight = drawn(seed)
    factors = np.random.default_rng(seed + 1).uniform(0.1, 3, 44).astype(np.float32)
    kernel = weight * factors[:12, None] * factors[12:]
    assert is_scaled(kernel, weight)
    assert not is_scaled(kernel, drawn(seed + 2000))
    weights = {"query": drawn(seed + 2000), "key": weight, "wide": drawn(seed, 12, 64)}
    assert layer_of_kernel(kernel, weights, "query") == "key"
    assert np.allclose(scaled_to(kernel, weight), kernel, rtol=1e-3, atol=1e-4)


def test_one_other_value_is_another_layer() -> None:
    weight = drawn(0)
    kernel = weight.copy()
    kernel[3, 5] *= 1.01
    assert not is_scaled(kernel, weight)
    assert layer_of_kernel(kernel, {"key": weight}, "named") == "named"


def test_equal_layers_are_told_by_their_name() -> None:
    weight = drawn(0)
    assert layer_of_kernel(weight, {"first": weight, "second": weight}, "second") == "second"


def test_zeros_have_no_factor() -> None:
    weight = drawn(0)
    weight[[0, 2]] = 0
    weight[:, 7] = 0
    assert is_scaled(2 * weight, weight)
    kernel = 2 * weight
    kernel[2, 1] = 1
    assert not is_scaled(kernel, weight)
    assert np.isfinite(scaled_to(kernel, weight)).all()


def test_a_single_row_or_column_tells_nothing() -> None:
    for shape in ((1, 32), (12, 1)):
        kernel, weight = drawn(0, *shape), drawn(1, *shape)
        assert layer_of_kernel(kernel, {"other": weight}, "named") == "named"


def test_weights_are_those_of_linear_layers_by_path() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Linear(4, 5)))
    assert {path: weight.shape for path, weight in linear_weights(net).items()} == {"1.0": (5, 4)}
