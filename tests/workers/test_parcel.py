"""What crosses between processes arrives as it left."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.workers.parcel import Parcel, found_under, put_under

NUMBERS = st.floats(allow_nan=False, width=64)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def crossed(parcel: Parcel) -> Parcel:
    return Parcel.from_bytes(parcel.to_bytes())


@given(VALUES)
def test_values_arrive_to_the_last_bit(values: object) -> None:
    assert crossed(Parcel(values=values)).values == values


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([math.pi, -0.0, float("nan"), float("inf")], dtype=torch.float64),
        torch.tensor(7, dtype=torch.int64),
        torch.tensor([True, False]),
        torch.zeros(0, 3),
        torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4).permute(2, 0, 1),
        torch.ones(2, dtype=torch.bfloat16),
    ],
)
def test_tensors_arrive_to_the_last_bit(tensor: torch.Tensor) -> None:
    found = crossed(Parcel(tensors={"a": tensor})).tensors["a"]
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(found.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_tensors_that_share_memory_cross() -> None:
    data = torch.arange(6.0)
    found = crossed(Parcel(tensors={"a": data[:4], "b": data[2:], "c": data})).tensors
    assert torch.equal(found["a"], data[:4])
    assert torch.equal(found["b"], data[2:])


def test_parts_of_a_parcel_keep_their_names_apart() -> None:
    one, other = {"w": torch.ones(1), "a/b": torch.zeros(1)}, {"w": torch.zeros(2)}
    together = put_under("one", one) | put_under("one more", other)
    assert found_under("one", together) == one
    assert found_under("one more", together) == other
