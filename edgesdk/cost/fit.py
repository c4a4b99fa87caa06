"""Fit the latency model's coefficients to measurements, and judge them on networks left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgesdk.cost.features import Floats, KernelTable, kernel_table
from edgesdk.cost.kernel_class import KERNEL_CLASSES
from edgesdk.cost.log_coefficients import precision_cost
from edgesdk.cost.pool import USUAL, Observation, Pool, Setting, Widths
from edgesdk.errors import MeasurementError
from edgesdk.graph import OpGraph
from edgesdk.precision_cost import KernelClass, PrecisionCost
from edgesdk.scheme import SCHEMES, Scheme

COVERAGE = 0.9
"""Share of predictions that an interval is to contain."""

LEAST_NETWORKS = 4
"""Networks that a fit needs: with fewer, none can be left out and the rest still say anything."""

_LEAST_ERROR_FACTOR = 1.05


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement: what ran, in which scheme, and how many seconds one inference took.

    ``model`` names the network; samples of one model are left out together when the fit is judged.
    ``board`` tells devices apart, ``engine`` what executed the model where it is not the runtime
    whose coefficients are wanted; both cost a factor on each rate.
    """

    model: str
    graph: OpGraph
    scheme: Scheme
    seconds: float
    board: str = ""
    engine: str = ""

    @property
    def setting(self) -> Setting:
        """What has coefficients of its own."""
        return self.scheme, self.board, self.engine


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One measurement, and what a fit without its model predicts for it."""

    sample: Sample
    predicted_s: float
    classes: frozenset[int]

    @property
    def error(self) -> float:
        """|predicted - measured| / measured."""
        return abs(self.predicted_s / self.sample.seconds - 1)

    @property
    def distance(self) -> float:
        """|log(predicted / measured)|."""
        return abs(math.log(self.predicted_s / self.sample.seconds))


@dataclass(frozen=True, kw_only=True)
class PooledFit:
    """Coefficients of every setting of a pool, and the predictions of what was left out."""

    costs: Mapping[Setting, PrecisionCost]
    held_out: tuple[HeldOut, ...]

    def cost(self, scheme: Scheme, board: str) -> PrecisionCost | None:
        """Return what a board costs under the wanted engine; None where it was not measured."""
        return self.costs.get((scheme, board, ""))


def fit_cost(samples: Sequence[Sample], prior: PrecisionCost, *, source: str) -> PrecisionCost:
    """Return the coefficients of one scheme that agree with its samples.

    The board is the first sample's. ``prior`` is what is believed without them; ``source`` goes
    into every number. The error factor and the median error are those of predictions for networks
    that were left out.

    Raises ``MeasurementError`` for fewer than ``LEAST_NETWORKS`` networks, several schemes, or a
    latency that is not a positive number.
    """
    schemes = {sample.scheme for sample in samples}
    if len(schemes) > 1:
        raise MeasurementError(
            f"the samples are in {', '.join(sorted(schemes))}", expected="samples of one scheme"
        )
    check_samples(samples)
    wanted = samples[0]
    found = fit_pool(samples, {wanted.scheme: prior}, source=source)
    return found.costs[wanted.scheme, wanted.board, ""]


def fit_pool(
    samples: Sequence[Sample], priors: Mapping[Scheme, PrecisionCost], *, source: str
) -> PooledFit:
    """Return the coefficients of every setting among the samples, fitted together.

    ``priors`` holds what is believed of each scheme without measurements. Each model is left out
    once; a setting's error factor contains nine in ten predictions of its scheme that were made
    so. Raises ``MeasurementError`` as ``fit_cost`` does.
    """
    check_samples(samples)
    samples = sorted(samples, key=lambda sample: _order(sample.setting))
    observations = _observations(samples)
    pool = Pool([*_wanted(samples), *(sample.setting for sample in samples)], priors)
    parameters = pool.fit(observations)
    held_out = leave_out(samples, priors)
    costs = {
        setting: _cost(pool.vector(setting, parameters), setting, held_out, source)
        for setting in pool.settings
        if not setting[2]
    }
    return PooledFit(costs=costs, held_out=held_out)


def check_samples(samples: Sequence[Sample]) -> None:
    """Raise ``MeasurementError`` for too few networks or a latency that cannot be."""
    for sample in samples:
        if not math.isfinite(sample.seconds) or sample.seconds <= 0:
            raise MeasurementError(
                f"a latency of {sample.seconds} s cannot be (network {sample.model})",
                expected="a positive number of seconds",
            )
    networks = {sample.model for sample in samples}
    if len(networks) < LEAST_NETWORKS:
        raise MeasurementError(
            f"measurements of {len(networks)} network(s) are too few to fit coefficients to",
            expected=f"measurements of at least {LEAST_NETWORKS} networks",
            next_step="measure more networks; the coefficients stay as they were",
        )


def leave_out(
    samples: Sequence[Sample],
    priors: Mapping[Scheme, PrecisionCost],
    group: Callable[[Sample], Hashable] = lambda sample: sample.model,
    *,
    suspect: Callable[[Sample], bool] = lambda _: False,
    widths: Widths = USUAL,
) -> tuple[HeldOut, ...]:
    """Return every sample with what a fit to all other groups predicts for it.

    A group is a whole network unless ``group`` says otherwise. What is ``suspect`` is predicted
    but never fitted to. ``widths`` are those of the pulls.
    """
    observations = _observations(samples)
    pool = Pool([*_wanted(samples), *(sample.setting for sample in samples)], priors, widths)
    found = []
    for left in dict.fromkeys(group(sample) for sample in samples):
        pairs = list(zip(samples, observations, strict=True))
        parameters = pool.fit(
            [item for sample, item in pairs if group(sample) != left and not suspect(sample)]
        )
        own = [(sample, item) for sample, item in pairs if group(sample) == left]
        predicted_s = pool.predict([item for _, item in own], parameters)
        found += [
            HeldOut(
                sample=sample,
                predicted_s=float(seconds),
                classes=frozenset(item.table.classes.tolist()),
            )
            for (sample, item), seconds in zip(own, predicted_s, strict=True)
        ]
    return tuple(found)


def interval_factor(distances: Sequence[float]) -> float:
    """Return the factor that contains nine in ten further predictions, from |log| errors.

    The split-conformal quantile: the ceil((n + 1) * 0.9)-th smallest of n (Vovk et al. 2005,
    "Algorithmic learning in a random world"), the largest where there are fewer than nine.
    """
    ordered = sorted(distances)
    rank = min(math.ceil((len(ordered) + 1) * COVERAGE), len(ordered))
    return max(math.exp(ordered[rank - 1]), _LEAST_ERROR_FACTOR)


def _wanted(samples: Sequence[Sample]) -> list[Setting]:
    """Return each scheme and board under the engine whose coefficients are wanted."""
    return list(dict.fromkeys((sample.scheme, sample.board, "") for sample in samples))


def _cost(
    logs: Floats, setting: Setting, held_out: Sequence[HeldOut], source: str
) -> PrecisionCost:
    """Return a setting's coefficients, judged by what was left out of its scheme.

    Where only other engines were measured on the board, the engine's own deviation there is
    unknown: as large as the model's, both in quadrature.
    """
    near = [item for item in held_out if item.sample.scheme == setting[0]]
    own = [item for item in near if item.sample.setting == setting]
    factor = interval_factor([item.distance for item in near])
    return precision_cost(
        logs,
        _seen(near),
        error_factor=factor if own else factor ** math.sqrt(2),
        median_error=float(np.median([item.error for item in near])),
        networks=len({item.sample.model for item in own or near}),
        source=source if own else f"{source}; another engine was measured on this board",
        kind="fitted" if own else "estimated",
    )


def _seen(held_out: Sequence[HeldOut]) -> frozenset[KernelClass]:
    found = {index for item in held_out for index in item.classes}
    return frozenset(KERNEL_CLASSES[index] for index in found if index >= 0)


def _observations(samples: Sequence[Sample]) -> list[Observation]:
    """Return the samples as a fit sees them; one network has one table in each scheme."""
    tables: dict[tuple[int, Scheme], KernelTable] = {}
    for sample in samples:
        key = (id(sample.graph), sample.scheme)
        if key not in tables:
            tables[key] = kernel_table(sample.graph, sample.scheme)
    return [
        Observation(
            model=sample.model,
            setting=sample.setting,
            table=tables[id(sample.graph), sample.scheme],
            seconds=sample.seconds,
        )
        for sample in samples
    ]


def _order(setting: Setting) -> tuple[bool, int, str, str]:
    """Sort settings: the wanted engine first, then fp32 before fp16 before int8, then boards."""
    scheme, board, engine = setting
    return bool(engine), SCHEMES.index(scheme), board, engine
