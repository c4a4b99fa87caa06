"""What each recovery technique gives back of what quantization costs, in points of accuracy.

    python benchmarks/recovery.py STATE [--seeds 3] [--task resnet20 ...] [--bits 8 ...] [--quick]

For every network and number of bits: nearest rounding, then each technique, scored on the test
images. The numbers are simulated: the network computes in float on the integer grids of LiteRT's
quantizer (weights of 8, 4 or 3 bits, one scale a channel, activations of 8 bits).
Training is tried wherever nearest rounding lost more than one point. Cells are appended to
STATE as they are done, and a second run goes on after the last. ``--quick`` takes the two
depthwise networks that read digits; ``-uneven`` ones are the same functions with channels of
uneven ranges, which make int8 collapse (benchmarks/tasks/uneven.py).

The others need the images and weights that benchmarks/tasks/ names (EDGESDK_DATA).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from edgesdk.compress.adaround import adaround
from edgesdk.compress.bias_correction import correct_biases
from edgesdk.compress.equalize import equalize
from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.compress.qat import default_qat, qat
from edgesdk.compress.rounding import AI_EDGE, Rounding
from edgesdk.compress.training import count_training
from edgesdk.effort import EFFORTS
from edgesdk.plan import AdaRound, Equalize
from edgesdk.task import Task, Tensors
from edgesdk.task_check import calibration_batches
from edgesdk.task_source import load_task

FOLDER = Path(__file__).parent / "tasks"
TASKS = {
    "digits-depthwise": f"{FOLDER / 'depthwise_digits.py'}:depthwise",
    "digits-depthwise-uneven": f"{FOLDER / 'depthwise_digits.py'}:depthwise_uneven",
    "digits": "demo:digits",
    "fashion-depthwise": f"{FOLDER / 'fashion_mnist.py'}:depthwise",
    "fashion-depthwise-uneven": f"{FOLDER / 'fashion_mnist.py'}:depthwise_uneven",
    "fashion-residual": f"{FOLDER / 'fashion_mnist.py'}:residual",
    "resnet20": f"{FOLDER / 'cifar10.py'}:resnet20",
}
BITS = (8, 4, 3)
QUICK = ("digits-depthwise", "digits-depthwise-uneven")
WORTH_TRAINING = 0.01
SEEDED = ("adaround", "equalize + adaround", "qat", "equalize + qat")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One score; ``seconds`` is what making the network took."""

    task: str
    bits: int
    technique: str
    seed: int
    accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """What a technique works on."""

    task: Task
    calibration: Sequence[Tensors]
    rounding: Rounding
    seed: int


Technique = Callable[[Setting], nn.Module]


def nearest(setting: Setting) -> nn.Module:
    """Return the network as post-training quantization takes it."""
    return fold_batch_norms(setting.task.model, setting.task.example_inputs)


def equalized(setting: Setting) -> nn.Module:
    """Return the network with its channels equalised."""
    return equalize(setting.task.model, setting.task.example_inputs, Equalize()).module


def corrected(setting: Setting, module: nn.Module) -> nn.Module:
    """Return a network with its biases corrected."""
    return correct_biases(
        module, setting.task.example_inputs, setting.calibration, setting.rounding
    )


def fitted(setting: Setting, module: nn.Module) -> nn.Module:
    """Return a network with its weights' rounding chosen."""
    return adaround(
        module, setting.task.example_inputs, setting.calibration, AdaRound(), setting.rounding,
        seed=setting.seed,
    ).module  # fmt: skip


def trained(setting: Setting, module: nn.Module) -> nn.Module:
    """Return a network after quantization-aware training with the default step."""
    task = setting.task
    _, samples = count_training(task)
    visits = EFFORTS["standard"].sample_visits
    step = default_qat(task, samples=samples, sample_visits=visits)
    return qat(
        module, task.model, task, step, setting.rounding, calibration=setting.calibration,
        device=torch.device("cpu"), seed=setting.seed,
    )  # fmt: skip


TECHNIQUES: dict[str, Technique] = {
    "nearest": nearest,
    "bias correction": lambda s: corrected(s, s.task.model),
    "equalize": equalized,
    "equalize + bias correction": lambda s: corrected(s, equalized(s)),
    "adaround": lambda s: fitted(s, s.task.model),
    "equalize + adaround": lambda s: fitted(s, equalized(s)),
    "qat": lambda s: trained(s, s.task.model),
    "equalize + qat": lambda s: trained(s, equalized(s)),
}


def main() -> None:
    """Compute the cells that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", action="append", choices=list(TASKS))
    parser.add_argument("--bits", action="append", type=int, choices=BITS)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    names = arguments.task or (QUICK if arguments.quick else TASKS)
    done = {
        name: completed(
            name, arguments.state, seeds=arguments.seeds, bits_asked=arguments.bits or BITS
        )
        for name in names
    }
    for name, cells in done.items():
        print("\n".join(table(name, cells)))


def completed(
    name: str, state: Path, *, seeds: int, bits_asked: Sequence[int] = BITS
) -> list[Cell]:
    """Return all cells of a task; those that the file lacks are computed and appended to it."""
    cells = read_cells(state)
    for cell in run(name, cells, seeds=seeds, bits_asked=bits_asked):
        cells.append(cell)
        with state.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(cell)) + "\n")
    return cells


def read_cells(path: Path) -> list[Cell]:
    """Return the cells done before, none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [Cell(**json.loads(line)) for line in lines]


def run(
    name: str, done: Sequence[Cell], *, seeds: int, bits_asked: Sequence[int]
) -> Iterator[Cell]:
    """Yield the cells of a task that are missing, in an order that a later one may depend on."""
    task = load_task(TASKS[name])
    calibration = tuple(calibration_batches(task))
    known = {(c.bits, c.technique, c.seed): c for c in done if c.task == name}

    def score(bits: int, technique: str, seed: int, make: Callable[[], nn.Module]) -> Cell:
        start = time.monotonic()
        module = make()
        seconds = time.monotonic() - start
        accuracy = evaluate_task(task, model_predict(module, torch.device("cpu")), "test")
        return Cell(
            task=name, bits=bits, technique=technique, seed=seed, accuracy=round(accuracy, 5),
            seconds=round(seconds, 1),
        )  # fmt: skip

    if (32, "float", 0) not in known:
        known[32, "float", 0] = score(32, "float", 0, lambda: task.model)
        yield known[32, "float", 0]
    for bits in bits_asked:
        for technique, make in TECHNIQUES.items():
            for seed in range(seeds if technique in SEEDED else 1):
                if (bits, technique, seed) in known:
                    continue
                lost = known[32, "float", 0].accuracy
                lost -= known[bits, "nearest", 0].accuracy if technique != "nearest" else 0.0
                if technique.endswith("qat") and lost <= WORTH_TRAINING:
                    continue
                rounding = Rounding(quantizer=AI_EDGE, weight_bits=bits)
                setting = Setting(task=task, calibration=calibration, rounding=rounding, seed=seed)
                cell = score(bits, technique, seed, lambda m=make, s=setting: quantized(s, m(s)))
                known[bits, technique, seed] = cell
                yield cell


def quantized(setting: Setting, module: nn.Module) -> nn.Module:
    """Return what quantizing a network to the nearest integers computes."""
    fake = FakeQuantized(module, setting.task.example_inputs, setting.rounding)
    fake.observe(setting.calibration)
    return fake


def table(name: str, cells: Sequence[Cell]) -> list[str]:
    """Return the lines of a Markdown table: techniques by bits, mean and spread over seeds."""
    own = [cell for cell in cells if cell.task == name]
    [original] = [cell.accuracy for cell in own if cell.technique == "float"]
    lines = [f"{name}: {100 * original:.2f} % in float", ""]
    lines += [f"| technique | {' | '.join(f'{bits} bits' for bits in BITS)} | seconds |"]
    lines += ["|---|" + "---|" * (len(BITS) + 1)]
    for technique in TECHNIQUES:
        found = [[c for c in own if (c.technique, c.bits) == (technique, bits)] for bits in BITS]
        seconds = [cell.seconds for group in found for cell in group]
        shown = f"{statistics.median(seconds):.0f}" if seconds else "–"
        lines.append(f"| {technique} | {' | '.join(map(_shown, found))} | {shown} |")
    return [*lines, ""]


def _shown(cells: Sequence[Cell]) -> str:
    if not cells:
        return "–"
    scores = [100 * cell.accuracy for cell in cells]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.2f}{spread}"


if __name__ == "__main__":
    main()
