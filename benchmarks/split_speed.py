"""Is an artifact whose layers were split into two of lower rank as fast as predicted?

    python benchmarks/split_speed.py [tflite] [executorch]

Splits both wide layers of ``tasks/wide_digits.py`` to ranks 24, 56 and 120, emits them for this
machine in fp32 and int8, and prints what their latency comes to beside the unsplit network's in the
same scheme: predicted, measured (timed in turn on one thread, median of three rounds in fresh
processes), and the accuracy that the emitted file has on the test images.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from itertools import product
from pathlib import Path

from timed import latency_ratio, opened
from torch import nn

from edgesdk.compress.factorize import factorized
from edgesdk.compress.samples import sample_inputs
from edgesdk.compressed import CompressedModel
from edgesdk.cost.latency import predict_latency
from edgesdk.device_files import load_device
from edgesdk.running.adapter import artifact_predict
from edgesdk.scheme import Scheme
from edgesdk.task import Task
from edgesdk.task_check import calibration_batches
from edgesdk.task_source import load_task
from edgesdk.trace import trace

TASK = f"{Path(__file__).parent / 'tasks' / 'wide_digits.py'}:wide"
LAYERS = ("3", "5")
RANKS = (24, 56, 120)
SCHEMES: tuple[Scheme, ...] = ("fp32", "int8")


def split(task: Task, rank: int) -> nn.Module:
    """Return the network with both wide layers of that rank."""
    _, batches = sample_inputs(task)
    return factorized(task.model, task.example_inputs, dict.fromkeys(LAYERS, rank), batches)


def predicted_ms(task: Task, module: nn.Module, target: str, scheme: Scheme) -> float:
    """Return a network's predicted latency on this machine's packaged profile."""
    graph = trace(module, task.example_inputs, name=task.name)
    return predict_latency(graph, load_device("host").runtime_for(target), scheme).total.value


def compare(task: Task, target: str, scheme: Scheme, folder: Path) -> None:
    """Print one line for each rank."""
    assert task.evaluate is not None

    def emitted(module: nn.Module) -> CompressedModel:
        return CompressedModel(
            module=module, example_inputs=task.example_inputs, scheme=scheme,
            calibration=tuple(calibration_batches(task)), inputs=task.inputs, outputs=task.outputs,
        )  # fmt: skip

    whole = opened(emitted(task.model), target, folder / "whole")
    whole_ms = predicted_ms(task, task.model, target, scheme)
    for rank in RANKS:
        module = split(task, rank)
        halves = opened(emitted(module), target, folder / str(rank))
        measured = latency_ratio(halves, whole, task.example_inputs)
        with halves() as process:
            accuracy = task.evaluate(artifact_predict(process), "test")
        predicted = predicted_ms(task, module, target, scheme) / whole_ms
        print(
            f"{target:11} {scheme:5} rank {rank:3}: predicted {predicted:.2f} of the unsplit "
            f"network's latency, measured {measured:.2f}; accuracy {100 * accuracy:.2f} %",
            flush=True,
        )


def main() -> None:
    """Print a line for each target, scheme and rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=["executorch", "tflite"])
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    task = load_task(TASK)
    with tempfile.TemporaryDirectory() as name:
        for target, scheme in product(options.targets, SCHEMES):
            compare(task, target, scheme, Path(name) / target / scheme)


if __name__ == "__main__":
    main()
