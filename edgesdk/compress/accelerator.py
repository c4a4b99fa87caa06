"""Where training runs, and with which random numbers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from edgesdk.errors import UsageError, unknown_name

ACCELERATORS = ("auto", "cpu", "cuda", "mps")


def find_accelerator(name: str) -> torch.device:
    """Return the device to train on; ``auto`` takes CUDA, else MPS, else the CPU.

    Raises ``UsageError`` for an unknown name and for an accelerator this machine does not have.
    """
    if name not in ACCELERATORS:
        listing = f"known: {', '.join(ACCELERATORS)}"
        raise UsageError(unknown_name("accelerator", name, ACCELERATORS, listing=listing))
    here = available_accelerators()
    if name == "auto":
        return torch.device(here[0])
    if name not in here:
        raise UsageError(
            f"the accelerator {name!r} is not available to PyTorch {torch.__version__} here",
            expected=f"one of {', '.join(here)}, or auto",
        )
    return torch.device(name)


def available_accelerators() -> list[str]:
    """Return the accelerators of this machine, the fastest first."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, here in found.items() if here] + ["cpu"]


@contextmanager
def seeded(device: torch.device, *parts: int) -> Iterator[None]:
    """Run the block with the global random generators seeded from ``parts``, then put them back.

    Torch, NumPy's legacy generator and ``random`` are seeded alike, because a task's training
    data may shuffle with any of them. On MPS only the CPU generators are put back.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    seed = int.from_bytes(digest[:4], "big")  # NumPy takes 32 bits
    python_state, numpy_state = random.getstate(), np.random.get_state()
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block on one CPU thread, for networks so small that threads only wait for each other.

    On a busy machine a second thread made the training of such a network many times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
