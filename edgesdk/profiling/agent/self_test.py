"""The self-test: do the golden inputs give the golden outputs?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .artifact import read_golden
from .tensors import decode, encode

# As edgesdk/parity.py and 'edgesdk verify' have them; a test keeps them equal.
REPLAY_SQNR_DB = 40.0
FLOAT_SQNR_DB = {
    "fp32": 60.0, "fp16": 30.0, "int8": 10.0, "w8a16": 15.0, "int8_dynamic": 10.0,
    "int4_dynamic": 3.0, "w8": 10.0, "w4": 3.0,
    "lut8": 10.0, "lut6": 10.0, "lut4": 3.0,
    "w8_sparse50": 3.0, "lut4_sparse50": 3.0,
}  # fmt: skip


def replay(
    run: Callable[[list[Any]], list[Any]],
    manifest: dict[str, Any],
    folder: Path,
    most: int | None = None,
) -> dict[str, Any]:
    """Return the self-test of the first ``most`` golden samples, of all where it is None."""
    inputs, wanted = (
        [values[:most] for values in column]
        for column in read_golden(folder / "golden.safetensors")
    )
    batches = [run(batch) for batch in encode(inputs, manifest["inputs"])]
    got = decode(batches, manifest["outputs"], len(inputs[0]))
    shapes = [tuple(value.shape for value in values) for values in (wanted, got)]
    if shapes[0] != shapes[1]:
        detail = f"answers of shapes {shapes[1]}, sealed were {shapes[0]}"
        return {"status": "failed", "samples": len(inputs[0]), "detail": detail}
    noise_db = sqnr_db(wanted, got)
    worst = max(float(np.abs(a.astype(float) - b).max()) for a, b in zip(wanted, got, strict=True))
    # Where nothing ran the file when it was sealed, the golden outputs are the float network's.
    is_replay = manifest["parity"]["status"] == "verified"
    schemes = {manifest["scheme"], *manifest.get("layer_schemes", {}).values()}
    least = REPLAY_SQNR_DB if is_replay else min(FLOAT_SQNR_DB[name] for name in schemes)
    passed = noise_db is not None and noise_db >= least
    compared = "sealed answers" if is_replay else "the float network's answers"
    return {
        "status": "passed" if passed else "failed",
        "samples": len(inputs[0]),
        "sqnr_db": noise_db,
        "maximum_error": worst if np.isfinite(worst) else None,
        "detail": f"compared with {compared}, {least:.0f} dB are needed",
    }


def sqnr_db(wanted: Sequence[Any], got: Sequence[Any]) -> float | None:
    """Return 10 log10(signal / noise) over all outputs, 200 where equal, None where not finite."""
    varying = whole = noise = 0.0
    for reference, actual in zip(wanted, got, strict=True):
        exact = reference.astype(np.float64)
        varying += float(np.square(exact - exact.mean(0, keepdims=True)).sum())
        whole += float(np.square(exact).sum())
        noise += float(np.square(exact - actual.astype(np.float64)).sum())
    if not np.isfinite(noise):
        return None
    signal = varying if varying > 1e-12 * whole else whole
    if noise <= signal * 1e-20:
        return 200.0
    return 10 * math.log10(max(signal, 1e-30) / noise)
