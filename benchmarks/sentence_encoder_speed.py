"""How much faster is a real sentence encoder in dynamic int8, and does it still mean the same?

    python benchmarks/sentence_encoder_speed.py [tflite] [executorch]

Emits all-MiniLM-L6-v2 (64 tokens; ``tasks/sentence_encoder.py`` says what it needs) in fp32 and
int8_dynamic, times both in turn on one thread, and prints the median ratio of three rounds in fresh
processes and the mean cosine with the float embeddings over 200 sentences.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from timed import latency_ratio, opened

from edgesdk.compressed import CompressedModel
from edgesdk.running.adapter import artifact_predict
from edgesdk.scheme import Scheme
from edgesdk.task import Task
from edgesdk.task_source import load_task

TASK = f"{Path(__file__).parent / 'tasks' / 'sentence_encoder.py'}:task"
LEAST_SPEEDUP = {"tflite": 3.0, "executorch": 2.4}
LEAST_COSINE = 0.99


def compressed(task: Task, scheme: Scheme) -> CompressedModel:
    """Return the encoder to be emitted in a scheme."""
    return CompressedModel(
        module=task.model, example_inputs=task.example_inputs, scheme=scheme, calibration=(),
        inputs=task.inputs, outputs=task.outputs,
    )  # fmt: skip


def keeps_its_promise(task: Task, target: str) -> bool:
    """Print a target's figures and return whether they are as good as wanted."""
    assert task.evaluate is not None
    with tempfile.TemporaryDirectory() as name:
        plain = opened(compressed(task, "fp32"), target, Path(name) / "fp32")
        narrow = opened(compressed(task, "int8_dynamic"), target, Path(name) / "int8_dynamic")
        speedup = 1 / latency_ratio(narrow, plain, task.example_inputs)
        with narrow() as process:
            cosine = task.evaluate(artifact_predict(process), "test")
    print(
        f"{target:11} int8_dynamic {speedup:.2f} times faster than fp32 (wanted "
        f"{LEAST_SPEEDUP[target]}), cosine {cosine:.4f} (wanted {LEAST_COSINE})",
        flush=True,
    )
    return speedup >= LEAST_SPEEDUP[target] and cosine >= LEAST_COSINE


def main() -> int:
    """Print each target's figures, and return 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=sorted(LEAST_SPEEDUP))
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    task = load_task(TASK)
    kept = [keeps_its_promise(task, target) for target in options.targets]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
