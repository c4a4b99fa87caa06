"""Is it better to prune deep in two rounds, with training between them, than in one?

    python benchmarks/pruning_rounds.py -o folder [--tasks digits] [--share 0.125] [--seeds 3]

Every group keeps the same share of its channels in the end. ``one`` prunes at once and trains 69
epochs. ``two`` prunes to the geometric mean of both widths, trains 15 epochs, estimates the
importance of what is left anew, prunes the rest, and trains 45. The wider network of the first
round makes its epochs dearer; seconds of this process are printed beside the scores. Which comes
first alternates from seed to seed. Finished cells are in ``folder/pruning_rounds.json``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from labelled import Labelled, load_labelled
from remembered import Remembered
from torch import nn

from edgesdk.compress.distil import default_distil, distil
from edgesdk.compress.importance import score_groups
from edgesdk.compress.prune import find_groups, prune
from edgesdk.compress.recalibrate import recalibrated_for
from edgesdk.compress.samples import sample_inputs
from edgesdk.compress.training import count_training
from edgesdk.plan import PrunedGroup

ROUNDS: Mapping[str, tuple[int, ...]] = {"one": (69,), "two": (15, 45)}
"""The epochs of each round."""

_SAMPLE_VISITS = 60_000

Widths = Mapping[str, int]


def narrowed(labelled: Labelled, model: nn.Module, widths: Widths) -> nn.Module:
    """Return the model with the channels gone that matter least in it now; norms follow."""
    examples = labelled.task.example_inputs
    groups = find_groups(model, examples)
    scores = score_groups(replace(labelled.task, model=model), groups).per_group
    removed = []
    for group in groups:
        of = scores[group.layer]
        order = sorted(group.units, key=lambda unit, of=of: (sum(of[c] for c in unit), unit))  # type: ignore[misc]
        gone = order[: (group.width - widths[group.layer]) // group.unit]
        channels = tuple(sorted(channel for unit in gone for channel in unit))
        if channels:
            found = PrunedGroup(layer=group.layer, width_before=group.width, removed=channels)
            removed.append(found)
    _, batches = sample_inputs(labelled.task)
    followed = recalibrated_for(model, examples, removed, batches)
    return prune(followed, examples, removed).eval()


def widths_at(labelled: Labelled, share: float) -> Widths:
    """Return whole units of every group, at least one."""
    groups = find_groups(labelled.task.model, labelled.task.example_inputs)
    units = {g.layer: max(1, round(g.width * share / g.unit)) * g.unit for g in groups}
    return units


def trained(labelled: Labelled, arm: str, share: float, seed: int) -> tuple[float, float, float]:
    """Return test accuracy, cross-entropy and the seconds that an arm took."""
    task, epochs = labelled.task, ROUNDS[arm]
    _, samples = count_training(task)
    start = time.process_time()
    model = task.model
    for index, count in enumerate(epochs):
        left = share ** ((index + 1) / len(epochs))
        step = default_distil(task, samples=samples, sample_visits=_SAMPLE_VISITS)
        step = replace(step, epochs=count, patience=count)
        model = narrowed(labelled, model, widths_at(labelled, left))
        device = torch.device("cpu")
        model = distil(model, task.model, task, step, device=device, seed=seed + 100 * index)
    seconds = time.process_time() - start
    answers = labelled.answers_of(model, "test")
    return answers.accuracy, answers.loss, seconds


def main() -> int:
    """Run what is not finished and print a table for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["digits"])
    parser.add_argument("--share", type=float, default=0.125)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    memory = Remembered(path=options.out / "pruning_rounds.json")
    torch.set_num_threads(1)
    for name in options.tasks:
        labelled = load_labelled(name)
        print(f"\n{name}, {options.share:g} of the channels left:\n")
        print("| seed | rounds | accuracy | cross-entropy | seconds |\n|---|---|---|---|---|")
        for seed in range(options.seeds):
            for arm in sorted(ROUNDS, reverse=bool(seed % 2)):
                work = partial(trained, labelled, arm, options.share, seed)
                cell = f"{name} {options.share:g} {arm} seed {seed}"
                accuracy, loss, seconds = memory.cell(cell, work)
                row = f"| {seed} | {arm} | {100 * accuracy:.2f} | {loss:.3f} | {seconds:.0f} |"
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
