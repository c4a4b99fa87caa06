"""Finding the accelerator, and random numbers that are put back."""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import pytest
import torch

from edgesdk.compress.accelerator import find_accelerator, seeded
from edgesdk.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine with the accelerators of the parameter."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in request.param)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in request.param)


@pytest.mark.parametrize(
    ("machine", "name", "found"),
    [
        ((), "auto", "cpu"),
        (("mps",), "auto", "mps"),
        (("cuda",), "auto", "cuda"),
        (("cuda",), "cpu", "cpu"),
        (("cuda",), "cuda", "cuda"),
        (("mps",), "mps", "mps"),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_accelerator_found(name: str, found: str) -> None:
    assert find_accelerator(name).type == found


@pytest.mark.parametrize("machine", [("mps",)], indirect=True)
@pytest.mark.usefixtures("machine")
def test_absent_accelerator_names_those_present() -> None:
    with pytest.raises(UsageError, match=r"'cuda' is not available.*one of mps, cpu, or auto"):
        find_accelerator("cuda")


def test_unknown_accelerator_suggests_the_near_one() -> None:
    with pytest.raises(UsageError, match="unknown accelerator 'cudda'; did you mean 'cuda'"):
        find_accelerator("cudda")


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: S311 - that one is tested


def test_seeded_decides_all_three_generators_and_puts_them_back() -> None:
    with seeded(CPU, 1, 2):
        first = draw()
    with seeded(CPU, 3):
        before = torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()
        with seeded(CPU, 1, 2):
            assert draw() == first
        with suppress(RuntimeError), seeded(CPU, 1, 3):
            assert all(a != b for a, b in zip(draw(), first, strict=True))
            raise RuntimeError
        after = torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()
        assert torch.equal(before[0], after[0])
        assert np.array_equal(before[1], after[1])
        assert before[2] == after[2]
