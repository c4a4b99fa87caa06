"""Does the expected loss rank plans as the real one does, before anything is recovered?

Random plans (a width for every group, a scheme) whose predicted latencies are alike form a band.
For each plan the expected loss is set against how much the cross-entropy on the test images really
grows once its channels are removed and its numbers rounded. Spearman's correlation within a band
says what a choice among plans of equal latency is worth.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from intervals import rank_correlation
from labelled import Labelled, load_labelled
from recovery import Setting, quantized
from remembered import Remembered
from torch import nn

from edgesdk.budget import Budget
from edgesdk.cache import Cache, default_root
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.compress.prune import prune
from edgesdk.compress.recalibrate import recalibrated_for
from edgesdk.compress.rounding import AI_EDGE, Rounding
from edgesdk.compress.samples import sample_inputs
from edgesdk.effort import Effort
from edgesdk.planner.options import Option, option_for
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.tables import CostTable, cost_tables
from edgesdk.planner.widths import Widths
from edgesdk.progress import Silent
from edgesdk.scheme import Scheme
from edgesdk.stages.learning import learn_graph, learn_sensitivity
from edgesdk.stages.request import Request, for_graph, resolve
from edgesdk.task_check import calibration_batches

DEVICE, TARGET = "host", "tflite"
SCHEMES: tuple[Scheme, ...] = ("fp32", "int8")
BANDS = (0.8, 0.6, 0.4, 0.2)
"""Centres of the bands, on the way from the fastest network (0) to the float original (1)."""

WITHIN = 0.02
"""How far a plan may be from its band's centre on that way."""

WANTED = 0.8
FEWEST = 10
_MOST_DRAWS = 400_000
_LEAN = 2.0
_SEED = 0

Tables = Mapping[Scheme, CostTable]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """What random plans are drawn from: a task, what the planner knows of it, its latencies."""

    labelled: Labelled
    sensitivity: Sensitivity
    latency: Tables

    def latency_of(self, scheme: Scheme, widths: Widths) -> float:
        """Return the predicted latency in milliseconds."""
        rows = zip(self.sensitivity.choices, widths, strict=True)
        return self.latency[scheme].at([row.index(kept) for row, kept in rows])

    @cached_property
    def _ends(self) -> tuple[float, float]:
        narrowest = tuple(row[0] for row in self.sensitivity.choices)
        least = min(self.latency_of(scheme, narrowest) for scheme in self.latency)
        return least, self.latency_of("fp32", self.sensitivity.widths.full)

    def latency_at(self, place: float) -> float:
        """Return the latency at a place from the fastest network (0) to the original (1)."""
        least, most = self._ends
        return least + place * (most - least)

    def place_of(self, scheme: Scheme, widths: Widths) -> float:
        """Return where a plan's latency is between the fastest network's and the original's."""
        least, most = self._ends
        return (self.latency_of(scheme, widths) - least) / (most - least)

    def real(self, option: Option) -> tuple[float, float]:
        """Return cross-entropy (nats) and accuracy on the test images, nothing recovered."""
        task = self.labelled.task
        groups = self.sensitivity.pruned_groups(option.widths)
        whole = task.model
        if groups and self.sensitivity.moves_batch_norms:
            _, batches = sample_inputs(task)
            whole = recalibrated_for(whole, task.example_inputs, groups, batches)
        module = prune(whole, task.example_inputs, groups).eval()
        if option.scheme == "int8":
            module = rounded(self.labelled, module)
        answers = self.labelled.answers_of(module, "test")
        return answers.loss, answers.accuracy


def rounded(labelled: Labelled, module: nn.Module) -> nn.Module:
    """Return what int8 makes of a network, simulated on the grids of LiteRT's quantizer."""
    task = labelled.task
    calibration = tuple(calibration_batches(task))
    setting = Setting(
        task=task, calibration=calibration, rounding=Rounding(quantizer=AI_EDGE), seed=0
    )
    return quantized(setting, fold_batch_norms(module, task.example_inputs))


def request_for(labelled: Labelled, schemes: Sequence[Scheme] = SCHEMES) -> Request:
    """Return the request that the planner would get for this machine."""
    return resolve(
        labelled.task, device=DEVICE, target=TARGET, budget=Budget(), effort=Effort(),
        accelerator="cpu", cache=Cache(default_root()), progress=Silent(), needs_toolchain=False,
        only=schemes,
    )  # fmt: skip


def ranked(labelled: Labelled) -> Ranked:
    """Return what plans of a task are drawn from."""
    request = request_for(labelled)
    graph = learn_graph(request)
    sensitivity = learn_sensitivity(for_graph(request, graph), graph)
    latency = {
        scheme: cost_tables(
            sensitivity.widths, sensitivity.choices, request.runtime, scheme
        ).latency_ms
        for scheme in SCHEMES
    }
    return Ranked(labelled=labelled, sensitivity=sensitivity, latency=latency)


def drawn(
    space: Ranked, share: float, count: int, *, seed: int = _SEED
) -> Iterator[tuple[Scheme, Widths]]:
    """Yield up to ``count`` different random plans of a band, the same ones for every call.

    How narrow a plan is on the whole is drawn first, so that bands far from the middle are met;
    each group then has a width of its own around that.
    """
    generator = random.Random(f"{space.labelled.name} {share} {seed}")  # noqa: S311 - no secret
    choices = space.sensitivity.choices
    seen: set[tuple[Scheme, Widths]] = set()
    for _ in range(_MOST_DRAWS):
        if len(seen) == count:
            return
        scheme = generator.choice(SCHEMES)
        power = 2 ** generator.uniform(-_LEAN, _LEAN)
        widths = tuple(row[int(len(row) * generator.random() ** power)] for row in choices)
        if (scheme, widths) in seen or abs(space.place_of(scheme, widths) - share) > WITHIN:
            continue
        seen.add((scheme, widths))
        yield scheme, widths


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One plan: ``expected`` loss, ``real`` growth of the cross-entropy in nats, ``accuracy``."""

    band: float
    scheme: Scheme
    widths: Widths
    expected: float
    real: float
    accuracy: float


def cells(space: Ranked, count: int, memory: Remembered) -> Iterator[Cell]:
    """Yield each plan's expected and real loss, band by band."""
    name, full = space.labelled.name, space.sensitivity.widths.full
    base, _ = memory.cell(f"rank {name}", lambda: space.real(option_for(full, full, "fp32")))
    for share in BANDS:
        for scheme, widths in drawn(space, share, count):
            option = option_for(widths, full, scheme)
            real, accuracy = memory.cell(
                f"rank {name} {scheme} {widths}", partial(space.real, option)
            )
            yield Cell(
                band=share,
                scheme=scheme,
                widths=widths,
                expected=space.sensitivity.loss(option),
                real=real - base,
                accuracy=accuracy,
            )


def table(name: str, found: Sequence[Cell]) -> list[str]:
    """Return the lines of a Markdown table: the correlation in each band, and their mean."""
    lines = [f"{name}:", "", "| band | plans | correlation (95 %) | accuracy of its plans |"]
    lines.append("|---|---|---|---|")
    values = []
    for band in BANDS:
        own = [cell for cell in found if cell.band == band]
        if len(own) < FEWEST:
            lines.append(f"| {band} | {len(own)} | – | – |")
            continue
        rho = rank_correlation([cell.expected for cell in own], [cell.real for cell in own])
        values.append(rho.value)
        scores = [100 * cell.accuracy for cell in own]
        lines.append(
            f"| {band} | {len(own)} | {rho.shown()} | {min(scores):.1f} to {max(scores):.1f} % |"
        )
    mean = statistics.mean(values) if values else math.nan
    verdict = "met" if mean >= WANTED else "missed"
    return [*lines, "", f"mean {mean:.2f}, wanted {WANTED}: {verdict}", ""]


def rank(names: Sequence[str], count: int, memory: Remembered) -> Iterator[str]:
    """Yield the table of each task, from ``count`` random plans in each band."""
    for name in names:
        yield from table(name, list(cells(ranked(load_labelled(name)), count, memory)))
