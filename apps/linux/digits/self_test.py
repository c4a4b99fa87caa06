"""Does the model compute here what it computed when it was compiled?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .model import BATCH_SIZE, INPUTS, OUTPUTS, Inputs, Model
from .processing import Array

GOLDEN_FILE = Path(__file__).with_name("golden.bin")
INVOCATIONS = 16
# What noise is compared with: the squared deviation of the golden outputs from their mean.
SIGNAL = 3186.27
MINIMUM_SQNR_DB = 40.0
EQUAL_DB = 200.0


@dataclass(frozen=True)
class SelfTest:
    """The outcome: signal to noise over all golden outputs (200 dB: equal), largest error."""

    passed: bool
    samples: int
    sqnr_db: float
    maximum_error: float


def run_self_test(model: Model) -> SelfTest:
    """Replay the golden inputs; passed where the answers keep `MINIMUM_SQNR_DB`."""
    inputs, outputs = golden()
    noise = worst = 0.0
    for index in range(INVOCATIONS):
        answer = model.predict(Inputs(*(array[index] for array in inputs)), normalise=False)
        for got, wanted in zip(vars(answer).values(), outputs, strict=True):
            difference = got.astype(np.float64) - wanted[index]
            noise += float(np.square(difference).sum())
            worst = max(worst, float(np.abs(difference).max()))
    if not math.isfinite(noise):
        return SelfTest(False, INVOCATIONS * BATCH_SIZE, -EQUAL_DB, math.inf)
    sqnr_db = min(EQUAL_DB, 10 * math.log10(SIGNAL / noise)) if noise > 0 else EQUAL_DB
    return SelfTest(sqnr_db >= MINIMUM_SQNR_DB, INVOCATIONS * BATCH_SIZE, sqnr_db, worst)


def golden() -> tuple[list[Array], list[Array]]:
    """Return the golden inputs and outputs in the app's layout, `[M, batch, ...]` each."""
    arrays = list(_read())
    return arrays[: len(INPUTS)], arrays[len(INPUTS) :]


def _read() -> Iterator[Array]:
    content, offset = GOLDEN_FILE.read_bytes(), 0
    for tensor in (*INPUTS, *OUTPUTS):
        shape = (INVOCATIONS, *tensor.app_shape)
        dtype = np.dtype(tensor.app_dtype).newbyteorder("<")
        array = np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape)
        offset += array.nbytes
        yield array
