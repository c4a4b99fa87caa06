"""Are MLPerf Tiny's own int8 figures reproduced by compiling the float networks?

    python benchmarks/rebuilt_references.py [resnet8] [ds_cnn]

Compiles the rebuilt networks of ``tasks/tiny_references.py`` in int8 for a NUCLEO-H7A3ZI-Q, and
prints the accuracy of the float network, of the file that edgesdk emitted (in TensorFlow Lite
Micro) and of the int8 file that the submitters ran (in LiteRT), on the same test samples, and the
bytes of both files.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from mlperf_tiny import FILES
from torch import Tensor

import edgesdk
from edgesdk.task_source import load_task

TASKS = Path(__file__).parent / "tasks" / "tiny_references.py"
INT8_FILES = {"resnet8": "pretrainedResnet_quant.tflite", "ds_cnn": "kws_ref_model.tflite"}
DEVICE = "nucleo_h7a3zi_q"
MOST_LOST = 0.005


class Reference:
    """An int8 file, called with a batch of float tensors ``[N, C, H, W]``."""

    def __init__(self, path: Path) -> None:
        self._interpreter = Interpreter(str(path))
        self._interpreter.allocate_tensors()
        (self._given,) = self._interpreter.get_input_details()
        (self._answer,) = self._interpreter.get_output_details()

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the outputs ``[N, classes]`` as integers, which rank the classes alike."""
        scale, zero = self._given["quantization"]
        samples = batch.permute(0, 2, 3, 1).numpy()
        rounded = np.clip(np.round(samples / scale) + zero, -128, 127).astype(np.int8)
        answers = []
        for sample in rounded:
            self._interpreter.set_tensor(self._given["index"], sample[None])
            self._interpreter.invoke()
            answers.append(self._interpreter.get_tensor(self._answer["index"]).copy())
        return torch.from_numpy(np.concatenate(answers)).float()


def is_reproduced(name: str) -> bool:
    """Print a network's figures and return whether int8 keeps within half a point of float."""
    task = load_task(f"{TASKS}:{name}")
    assert task.evaluate is not None
    published = FILES / INT8_FILES[name]
    with tempfile.TemporaryDirectory() as folder:
        result = edgesdk.compile(
            f"{TASKS}:{name}", device=DEVICE, out=Path(folder) / name, schemes=("int8",)
        )
    accuracy, size = result.verified["accuracy"].value, result.verified["size_bytes"].value
    drop = result.verified["accuracy_drop"].value
    print(
        f"{name:8} float {100 * (accuracy + drop):.2f} %, int8 {100 * accuracy:.2f} % in "
        f"{size:.0f} bytes; published int8 {100 * task.evaluate(Reference(published), 'test'):.2f} "
        f"% in {published.stat().st_size} bytes",
        flush=True,
    )
    return drop <= MOST_LOST


def main() -> int:
    """Print each network's figures, and return 1 where int8 loses more than half a point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(INT8_FILES))
    kept = [is_reproduced(name) for name in parser.parse_args().names]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
