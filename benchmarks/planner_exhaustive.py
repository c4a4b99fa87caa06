"""How far is the planner from the best there is, where every candidate can be trained?

Every choice of widths of a small network is trained alike, three seeds, and scored in fp32 and in
int8 (simulated on the grids of LiteRT's quantizer). For a limit on the predicted latency the best
candidate within it is chosen on one half of the test images and scored on the other, and the other
way round; the planner, which has trained nothing, may be 0.3 points below it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from intervals import paired_difference
from labelled import Answers, Labelled, load_labelled
from numpy.typing import NDArray
from planner_rank import DEVICE, SCHEMES, TARGET, Ranked, ranked, rounded
from remembered import Remembered

from edgesdk.budget import Budget
from edgesdk.compress.distil import default_distil, distil
from edgesdk.compress.prune import prune
from edgesdk.compress.training import count_training
from edgesdk.pipeline import plan_task
from edgesdk.plan import Plan, Prune
from edgesdk.planner.widths import Widths
from edgesdk.scheme import Scheme

SAMPLE_VISITS = 20_000
LIMITS = (0.75, 0.5, 0.35, 0.2)
"""Limits on the latency, on the way from the fastest network (0) to the float original (1)."""

WITHIN = 0.003

Candidate = tuple[Scheme, Widths]
Scored = Mapping[Candidate, NDArray[np.bool_]]
"""Which test images each candidate names right, ``[seeds, images]``."""


def trained(space: Ranked, widths: Widths, seed: int) -> dict[Scheme, str]:
    """Return which test images a network of those widths names right once it was trained."""
    labelled = space.labelled
    task = labelled.task
    groups = space.sensitivity.pruned_groups(widths)
    module = prune(task.model, task.example_inputs, groups).eval()
    _, samples = count_training(task)
    step = default_distil(task, samples=samples, sample_visits=SAMPLE_VISITS)
    module = distil(module, task.model, task, step, device=torch.device("cpu"), seed=seed)
    return {
        "fp32": _digits(labelled.answers_of(module, "test")),
        "int8": _digits(labelled.answers_of(rounded(labelled, module), "test")),
    }


def _digits(answers: Answers) -> str:
    return "".join("1" if right else "0" for right in answers.correct.tolist())


def scored(space: Ranked, seeds: int, memory: Remembered) -> Scored:
    """Return every candidate's answers, trained where that was not done before."""
    rows: dict[Candidate, list[list[bool]]] = {}
    name = space.labelled.name
    for widths in itertools.product(*space.sensitivity.choices):
        for seed in range(seeds):
            work = partial(trained, space, widths, seed)
            answers = memory.cell(f"exhaustive {name} {widths} seed {seed}", work)
            for scheme in SCHEMES:
                right = [digit == "1" for digit in answers[scheme]]
                rows.setdefault((scheme, widths), []).append(right)
    return {candidate: np.array(found) for candidate, found in rows.items()}


def planned(space: Ranked, labelled: Labelled, limit_ms: float) -> Candidate:
    """Return what the planner takes within a latency, by prediction alone."""
    plan = plan_task(
        labelled.task,
        device=DEVICE,
        target=TARGET,
        budget=Budget(latency_ms=limit_ms),
        schemes=SCHEMES,
    ).plan
    return plan.scheme, widths_of(plan, space)


def widths_of(plan: Plan, space: Ranked) -> Widths:
    """Return the widths that a plan leaves."""
    left = dict(zip(space.sensitivity.widths.groups, space.sensitivity.widths.full, strict=True))
    for step in plan.steps:
        if isinstance(step, Prune):
            left |= {group.layer: group.width_after for group in step.groups}
    return tuple(left.values())


def best_by_halves(
    found: Scored, within: Sequence[Candidate]
) -> tuple[NDArray[np.bool_], tuple[Candidate, Candidate]]:
    """Return the answers of the best candidates, each image's from the one that was chosen on the
    other half of the images, and those two candidates."""
    answers = np.zeros_like(next(iter(found.values())))
    chosen = []
    for half in (0, 1):
        other = max(within, key=lambda candidate: found[candidate][:, 1 - half :: 2].mean())
        answers[:, half::2] = found[other][:, half::2]
        chosen.append(other)
    return answers, (chosen[0], chosen[1])


def exhaustive(names: Sequence[str], seeds: int, memory: Remembered) -> Iterator[str]:
    """Yield a table for each task: the planner and the best, limit by limit."""
    for name in names:
        labelled = load_labelled(name)
        space = ranked(labelled)
        found = scored(space, seeds, memory)
        yield from (f"{name}, {len(found)} candidates, {seeds} seeds:", "")
        yield "| limit | planner | accuracy | best | accuracy | difference (95 %), points |"
        yield "|---|---|---|---|---|---|"
        differences = []
        for place in LIMITS:
            limit_ms = space.latency_at(place)
            within = [c for c in found if space.latency_of(*c) <= limit_ms]
            ours = planned(space, labelled, limit_ms)
            best, chosen = best_by_halves(found, within)
            difference = paired_difference(found[ours], best)
            differences.append(difference.value)
            yield (
                f"| {place} | {_shown(ours)} | {100 * found[ours].mean():.2f} | "
                f"{' / '.join(dict.fromkeys(map(_shown, chosen)))} | {100 * best.mean():.2f} | "
                f"{difference.shown(scale=100)} |"
            )
        near = sum(difference >= -WITHIN for difference in differences)
        verdict = "met" if near == len(differences) else "missed"
        yield from ("", f"{near} of {len(differences)} within {100 * WITHIN:.1f}: {verdict}", "")


def _shown(candidate: Candidate) -> str:
    scheme, widths = candidate
    return f"{scheme} {'-'.join(map(str, widths))}"
