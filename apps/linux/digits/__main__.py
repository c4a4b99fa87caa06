"""`python -m digits`: self-test, benchmark, or one prediction."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from .measurement import measure
from .model import INPUTS, THREADS, Inputs, Model
from .self_test import MINIMUM_SQNR_DB, run_self_test


def main() -> int:
    """Return the exit code: 0, 1 for a failed self-test, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m digits", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--self-test", action="store_true", help="replay the golden inputs")
    what.add_argument("--benchmark", action="store_true", help="time it, with the self-test")
    names = ", ".join(tensor.name for tensor in INPUTS)
    what.add_argument(
        "--predict", nargs=len(INPUTS), metavar="FILE.npy", type=Path, help=f"arrays for {names}"
    )
    parser.add_argument("-o", "--output", type=Path, help="write the measurement there")
    parser.add_argument("--runs", type=int, default=200, help="timed inferences")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--sustained", type=float, default=0.0, metavar="SECONDS")
    chosen = parser.parse_args()
    if chosen.runs < 1 or chosen.threads < 1:
        parser.error("--runs and --threads are at least 1")
    if chosen.benchmark:
        return _benchmark(chosen)
    model = Model(chosen.threads)
    if chosen.self_test:
        test = run_self_test(model)
        verdict = "passed" if test.passed else "FAILED"
        print(
            f"{verdict}: {test.samples} samples, {test.sqnr_db:.1f} dB "
            f"(at least {MINIMUM_SQNR_DB:g}), largest error {test.maximum_error:.3g}"
        )
        return 0 if test.passed else 1
    outputs = model.predict(Inputs(*(np.load(path, allow_pickle=False) for path in chosen.predict)))
    print(json.dumps({name: array.tolist() for name, array in vars(outputs).items()}))
    print(outputs.best_logits(), file=sys.stderr)
    return 0


def _benchmark(chosen: argparse.Namespace) -> int:
    measurement = measure(chosen.runs, chosen.threads, chosen.sustained)
    text = json.dumps(measurement, indent=2, allow_nan=False) + "\n"
    if chosen.output:
        chosen.output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0 if measurement["self_test"]["status"] == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
