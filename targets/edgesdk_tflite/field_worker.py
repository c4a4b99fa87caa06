"""Runs a ``.tflite`` file on tflite-runtime: alone, in an environment where edgesdk is not.

    python field_worker.py MODEL INPUTS.npz OUTPUTS.npz INPUT_ORDER OUTPUT_ORDER

``INPUTS.npz`` holds ``[M, B, ...]`` arrays in the manifest's order; the orders say at which place
of the file's own list each tensor is ("0,1"). Needs Python 3.10, NumPy and tflite-runtime alone.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Write the outputs of every inference and say who computed them as one JSON line."""
    import numpy as np
    import tflite_runtime
    from tflite_runtime.interpreter import Interpreter

    model, source, destination, inputs, outputs = sys.argv[1:6]
    with np.load(source, allow_pickle=False) as stored:
        stacked = [stored[f"arr_{index}"] for index in range(len(stored.files))]
    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    takes = [interpreter.get_input_details()[int(at)]["index"] for at in inputs.split(",")]
    gives = [interpreter.get_output_details()[int(at)]["index"] for at in outputs.split(",")]
    results = []
    for batches in zip(*stacked, strict=True):
        for index, batch in zip(takes, batches, strict=True):
            interpreter.set_tensor(index, batch)
        interpreter.invoke()
        results.append([interpreter.get_tensor(index) for index in gives])
    np.savez(destination, *[np.stack(column) for column in zip(*results, strict=True)])
    sys.stdout.write(json.dumps({"version": tflite_runtime.__version__}) + "\n")


if __name__ == "__main__":
    main()
