"""Compare what runs an artifact here with a second runtime that has to give the same numbers."""

from __future__ import annotations

import numpy as np

from edgesdk.artifact import Check
from edgesdk.parity import sqnr_db
from edgesdk.running.adapter import decode_outputs, encode_inputs
from edgesdk.running.process import ArtifactProcess
from edgesdk.target import Arrays, Twin, Twinned
from edgesdk.task import Tensors

# Two kernels that sum or round in another order; a wrong one is nowhere near.
_LEAST_DB = 40.0


def compare_with_twin(process: ArtifactProcess, golden: Tensors, target: object) -> Check | None:
    """Return the comparison of a running artifact with its twin on the golden inputs.

    None where the target names no second runtime for it. Integers are compared as the file has
    them, before anything turns them into real numbers.
    """
    if not isinstance(target, Twinned):
        return None
    twin = target.twin(process.folder, process.emission, process.host_runtime)
    if twin is None:
        return None
    if twin.unusable:
        return Check(name=_name(twin), passed=True, detail=f"not compared: {twin.unusable}")
    stacked, count = encode_inputs(golden, process.emission.inputs)
    ours = process.run(stacked)
    with ArtifactProcess(
        target=process.target,
        folder=process.folder,
        emission=process.emission,
        host_runtime=twin.host_runtime,
    ) as other:
        theirs = other.run(stacked)
    specs = process.emission.outputs
    noise_db = sqnr_db(decode_outputs(theirs, specs, count), decode_outputs(ours, specs, count))
    return judge_twin(ours, theirs, noise_db, twin)


def judge_twin(ours: Arrays, theirs: Arrays, noise_db: float | None, twin: Twin) -> Check:
    """Return whether two runtimes agree as far as their target says they must."""
    pairs = list(zip(ours, theirs, strict=True))
    total = sum(array.size for array in ours)
    differing = sum(int(np.count_nonzero(one != other)) for one, other in pairs)
    if not differing:
        passed, detail = True, f"bit-identical in {total} values"
    elif twin.most_units is None:
        passed = noise_db is not None and noise_db >= _LEAST_DB
        detail = f"{differing} of {total} values differ, signal to noise {noise_db} dB"
    else:
        gaps = [np.abs(one.astype(np.int64) - other.astype(np.int64)).max() for one, other in pairs]
        units = int(max(gaps))
        passed = units <= twin.most_units
        detail = f"{differing} of {total} values differ by at most {units} units"
    if differing and twin.reason:
        detail = f"{detail}; {twin.reason}"
    return Check(name=_name(twin), passed=passed, detail=detail)


def _name(twin: Twin) -> str:
    return f"answers are those of {twin.host_runtime}"
