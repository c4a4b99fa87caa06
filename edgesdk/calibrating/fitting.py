"""Fit all coefficients of one runtime and scheme to microbenchmarks of one machine.

Published measurements are few and of whole networks, so ``edgesdk.cost.fit`` lets devices borrow
from each other. Microbenchmarks are many and chosen: each kind of kernel has networks of its own,
and its coefficients can be told apart.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import t as student_t

from edgesdk.cost.coefficients import Coefficients, displaced_share, padded_share
from edgesdk.cost.features import Floats, KernelTable, kernel_table
from edgesdk.cost.fit import Sample
from edgesdk.cost.kernel_class import (
    CLASS_INDEX,
    KERNEL_CLASSES,
    KERNEL_VARIANTS,
    class_of_variant,
)
from edgesdk.errors import MeasurementError
from edgesdk.precision_cost import KernelClass, KernelCost, KernelVariant, PrecisionCost
from edgesdk.quantity import Quantity

LEAST_NETWORKS = 8
"""Fewer cannot tell arithmetic, memory and dispatch of the common kernels apart."""

COVERAGE = 0.9
_LEAST_FAMILIES = 2
LEAST_ERROR_FACTOR = 1.1
"""Medians of one artifact in a quiet machine's processes lie within 1.08 of each other."""

_SCATTER = 0.08
_FREE = 2.5  # a machine may differ from the prior by as much as it likes: a factor of 12
_KIN = 0.5  # the same kernels on other shapes: a factor of 1.6
_STEPS = 60
_LEAST_OVERHEAD_S = 1e-8

# seconds per MAC, byte, dispatch, patch and output element
_MAC, _BYTE, _DISPATCH, _PATCH, _OUTPUT = range(5)
_START_PATCH_S, _START_OUTPUT_S = 1e-9, 1e-10
_MISS, _START_MISS_S = 5, 4e-11
_COMPUTING = (_MAC, _PATCH, _OUTPUT)
_TINY = 1e-6
_TILES = (1.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_CACHES_BYTES = tuple(2.0**n for n in range(17, 26))  # 128 KiB to 32 MiB
_PARENTS: Mapping[str, KernelClass] = {
    "first_conv": "conv",
    "gate_conv": "conv",
    "linear": "conv",
    "grouped": "conv",
}
_WEIGHTED = frozenset(
    {"conv", "first_conv", "gate_conv", "linear", "depthwise", "grouped", "wide_depthwise"}
)
_WITH_MACS = _WEIGHTED | {"conv3d", "matmul", "recurrent", "wide_depthwise"}
_BOUNDARY = frozenset({"input", "output"})

Group = KernelClass | KernelVariant
# Parents before those that are held to them.
_ORDER: tuple[Group, ...] = (*KERNEL_CLASSES, *KERNEL_VARIANTS)


@dataclass(frozen=True, kw_only=True)
class _Parameter:
    """One number that the fit moves, as a logarithm: a coefficient of a group of kernels.

    It is held to the parameter ``parent``, or to ``start`` where that is None, with ``spread``.
    """

    group: Group
    coefficient: int
    start: float
    parent: int | None
    spread: float


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The kernels ``[R]`` of all samples one after the other; sample i begins at ``starts[i]``."""

    groups: NDArray[np.int64]
    weights: Floats
    macs: Floats
    moved: Floats
    dispatches: Floats
    patches: Floats
    outputs: Floats
    widths: Floats
    starts: NDArray[np.int64]


def fit_machine(
    samples: Sequence[Sample], prior: PrecisionCost, *, families: Mapping[str, str], source: str
) -> PrecisionCost:
    """Return the coefficients that agree with the samples, all of one runtime and scheme.

    Least squares of the logarithms of predicted over measured, robust against a disturbed
    measurement. Each class of kernels, and each variant among the samples, has coefficients of its
    own; related ones are held to each other, the others loosely to the prior's.

    ``error_factor`` and ``median_error`` come from the networks that have a family, by model, each
    predicted by a fit without any of its family: what is to be predicted is seldom of a make that
    was measured. They should be whole small networks, for one that alone shows what one kind of
    kernel costs cannot be predicted without itself. Raises ``MeasurementError`` for too few samples
    and for a latency that is not a positive number.
    """
    _check(samples)
    problem = _Problem(samples, prior)
    everything = problem.choose_sizes()
    found = np.array([families.get(sample.model, "") for sample in samples])
    seconds = np.array([sample.seconds for sample in samples])
    misses: list[float] = []
    judges = sorted({*found} - {""})
    for family in judges:
        left_out = found == family
        ratios = problem.predict(problem.solve(~left_out, everything)) / seconds
        misses += ratios[left_out].tolist()
    return problem.cost(everything, misses, error_factor(misses, len(judges)), source)


def error_factor(misses: Sequence[float], families: int) -> float | None:
    """Return what bounds nine predictions in ten; ``misses`` are predicted over measured.

    The prediction interval of Student's t, for logarithms about zero: the ``families`` are what is
    independent, and too few for an empirical quantile, which would be their worst. None where one
    family or none was left out.
    """
    if families < _LEAST_FAMILIES:
        return None
    scatter = math.sqrt(statistics.fmean(math.log(miss) ** 2 for miss in misses))
    quantile = float(student_t.ppf((1 + COVERAGE) / 2, families))
    factor = math.exp(quantile * scatter * math.sqrt(1 + 1 / families))
    return max(factor, LEAST_ERROR_FACTOR)


class _Problem:
    """The least-squares problem of some samples: its parameters, and what they predict."""

    def __init__(self, samples: Sequence[Sample], prior: PrecisionCost) -> None:
        self._prior = prior
        tables = [kernel_table(sample.graph, sample.scheme) for sample in samples]
        names = [_groups(table) for table in tables]
        found = {name for group in names for name in group}
        self.groups: list[Group] = [name for name in _ORDER if name in found]
        index = {name: position for position, name in enumerate(self.groups)}
        self._rows = _stack(tables, [[index[name] for name in group] for group in names])
        self._sample_of = np.repeat(np.arange(len(tables)), [len(t.ops) for t in tables])
        self._log_seconds = np.log([sample.seconds for sample in samples])
        self._parameters = self._list_parameters()
        self._spreads = np.array([item.spread for item in self._parameters])
        self._fixed = self.centre()
        self._use_tile(_TILES[0])
        self._parents = np.array([-1 if p.parent is None else p.parent for p in self._parameters])
        self._at = np.array([(index.get(p.group, 0), p.coefficient) for p in self._parameters])

    def centre(self) -> Floats:
        """Return the parameters before any measurement."""
        return np.array([item.start for item in self._parameters])

    def choose_sizes(self) -> Floats:
        """Return the parameters that agree best with all samples, at the best tile and cache.

        A size moves nothing until it crosses a layer's or a network's, so it is tried and not
        searched.
        """
        self._use_cache(_CACHES_BYTES[len(_CACHES_BYTES) // 2])
        start = self._choose(self._use_tile, _TILES, self.centre())
        return self._choose(self._use_cache, _CACHES_BYTES, start)

    def _choose(
        self, use: Callable[[float], None], sizes: Sequence[float], start: Floats
    ) -> Floats:
        """Return the parameters at the best of the sizes, which is then in use."""
        everything = np.ones(len(self._log_seconds), dtype=np.bool_)
        found = {}
        for size in sizes:
            use(size)
            start = self.solve(everything, start)
            found[size] = (self._objective(start, everything), start)
        best = min(found, key=lambda size: found[size][0])
        use(best)
        return found[best][1]

    def _use_tile(self, channels: float) -> None:
        self._tile = channels
        rows = self._rows
        macs = rows.macs * padded_share(rows.widths, channels)
        counts = [macs, rows.moved, rows.dispatches, rows.patches, rows.outputs]
        self._counts = np.stack(counts, axis=1)

    def _use_cache(self, cache_bytes: float) -> None:
        weights = np.add.reduceat(self._rows.weights, self._rows.starts)
        self._cache_bytes = cache_bytes
        self._displaced = weights * displaced_share(weights, cache_bytes)

    def solve(self, kept: NDArray[np.bool_], start: Floats) -> Floats:
        """Return the parameters that agree best with the samples ``kept``."""
        found: Floats = least_squares(
            partial(self.residuals, kept), start, jac=partial(self.slopes, kept),
            method="lm", max_nfev=_STEPS, ftol=1e-5,
        ).x  # fmt: skip
        return found

    def residuals(self, kept: NDArray[np.bool_], logs: Floats) -> Floats:
        """Return what least squares makes small, ``[S + P]``: misses, and how far priors are."""
        misses = (np.log(self.predict(logs)) - self._log_seconds)[kept] / _SCATTER
        held = logs - np.where(self._parents < 0, self._fixed, logs[self._parents])
        together: Floats = np.concatenate([_softened(misses), held / self._spreads])
        return together

    def slopes(self, kept: NDArray[np.bool_], logs: Floats) -> Floats:
        """Return the residuals' derivatives by the parameters, ``[S + P, P]``."""
        total, parts = self._parts(logs)
        misses = (np.log(total) - self._log_seconds)[kept] / _SCATTER
        softening = _softened_slope(misses)[:, None]
        measured = softening * (parts / total[:, None])[kept] / _SCATTER
        held = np.diag(1 / self._spreads)
        children = np.flatnonzero(self._parents >= 0)
        held[children, self._parents[children]] -= 1 / self._spreads[children]
        together: Floats = np.concatenate([measured, held])
        return together

    def _objective(self, logs: Floats, kept: NDArray[np.bool_]) -> float:
        return float(np.sum(self.residuals(kept, logs) ** 2))

    def predict(self, logs: Floats) -> Floats:
        """Return the seconds of each sample, ``[S]``."""
        seconds = np.exp(logs)
        each = self._row_seconds(seconds).sum(axis=1)
        total: Floats = np.add.reduceat(each, self._rows.starts) + seconds[0]
        total += seconds[1] * self._displaced
        return total

    def _row_seconds(self, seconds: Floats) -> Floats:
        """Return what each kernel pays per coefficient, ``[R, 5]``; what it does not wait for is 0.

        It waits for the longer of its arithmetic and its memory.
        """
        table = np.zeros((len(self.groups), 5))
        table[self._at[2:, 0], self._at[2:, 1]] = seconds[2:]
        paid: Floats = table[self._rows.groups] * self._counts
        computes = paid[:, _COMPUTING].sum(axis=1) >= paid[:, _BYTE]
        paid[computes, _BYTE] = 0.0
        paid[np.ix_(~computes, _COMPUTING)] = 0.0
        return paid

    def _parts(self, logs: Floats) -> tuple[Floats, Floats]:
        """Return the seconds of each sample, ``[S]``, and what each parameter adds, ``[S, P]``.

        A part is also the derivative by the logarithm of its parameter.
        """
        seconds = np.exp(logs)
        paid = self._row_seconds(seconds)
        by_group = np.zeros((len(self._log_seconds), len(self.groups), 5))
        np.add.at(by_group, (self._sample_of, self._rows.groups), paid)
        parts = np.empty((len(self._log_seconds), len(logs)))
        parts[:, 0], parts[:, 1] = seconds[0], seconds[1] * self._displaced
        parts[:, 2:] = by_group[:, self._at[2:, 0], self._at[2:, 1]]
        return parts.sum(axis=1), parts

    def cost(
        self, logs: Floats, misses: Sequence[float], factor: float | None, source: str
    ) -> PrecisionCost:
        """Return the profile's entry for the parameters."""

        def fitted(value: float) -> Quantity:
            return Quantity(value=float(f"{value:.4g}"), source=source, kind="fitted")

        seconds = dict(
            zip([(p.group, p.coefficient) for p in self._parameters], np.exp(logs), strict=True)
        )

        def rate(group: Group, coefficient: int) -> Quantity | None:
            found = seconds.get((group, coefficient))
            return None if found is None else fitted(1 / found)

        def time(group: Group, coefficient: int) -> Quantity | None:
            found = seconds.get((group, coefficient))
            return None if found is None else fitted(found)

        kernels = {
            group: KernelCost(
                mac_per_s=rate(group, _MAC),
                bytes_per_s=rate(group, _BYTE),
                op_overhead_s=time(group, _DISPATCH),
                patch_s=time(group, _PATCH),
                output_s=time(group, _OUTPUT),
            )
            for group in self.groups
        }
        dispatch = float(np.median([s for (_, c), s in seconds.items() if c == _DISPATCH]))
        return PrecisionCost(
            mac_per_s=rate("conv", _MAC) or self._prior.mac_per_s,
            bytes_per_s=rate("elementwise", _BYTE) or self._prior.bytes_per_s,
            op_overhead_s=fitted(dispatch),
            inference_overhead_s=fitted(float(np.exp(logs[0]))),
            channel_tile=fitted(self._tile),
            cache_bytes=fitted(self._cache_bytes),
            cache_miss_bytes_per_s=fitted(float(np.exp(-logs[1]))),
            error_factor=self._prior.error_factor if factor is None else fitted(factor),
            median_error=fitted(statistics.median(abs(m - 1) for m in misses)) if misses else None,
            networks=len(misses) or None,
            kernels=kernels,
        )

    def _list_parameters(self) -> list[_Parameter]:
        """Return what the fit moves: first the cost of an inference, then each group's numbers."""
        prior = Coefficients.of(self._prior)
        inference = math.log(max(prior.inference_s, _LEAST_OVERHEAD_S))
        # The two that belong to no group come first.
        listed = [
            _Parameter(group="input", coefficient=which, start=start, parent=None, spread=_FREE)
            for which, start in ((_DISPATCH, inference), (_MISS, math.log(_START_MISS_S)))
        ]
        position: dict[tuple[Group, int], int] = {}
        for group in self.groups:
            shared = CLASS_INDEX[_class_of(group)]
            starts = {
                _MAC: prior.mac_s[shared] if group in _WITH_MACS else None,
                _BYTE: prior.byte_s[shared],
                _DISPATCH: None if group in _BOUNDARY else prior.dispatch_s[shared],
                _PATCH: _START_PATCH_S if group in _WEIGHTED else None,
                _OUTPUT: _START_OUTPUT_S if group in _WEIGHTED else None,
            }
            for coefficient, start in starts.items():
                if start is None:
                    continue
                parent = position.get((_parent(group), coefficient))
                position[group, coefficient] = len(listed)
                listed.append(
                    _Parameter(
                        group=group,
                        coefficient=coefficient,
                        start=math.log(max(float(start), _LEAST_OVERHEAD_S))
                        if coefficient == _DISPATCH
                        else math.log(float(start)),
                        parent=parent,
                        spread=_FREE if parent is None else _KIN,
                    )
                )
        return listed


def _softened(misses: Floats) -> Floats:
    """Return what squares to soft L1: a disturbed measurement pulls no harder the further it is.

    On measurements only: a prior is not forgiven for being far away.
    """
    found: Floats = np.sign(misses) * np.sqrt(2 * (np.hypot(1, misses) - 1))
    return found


def _softened_slope(misses: Floats) -> Floats:
    softened = _softened(misses)
    slope: Floats = np.ones_like(misses)
    np.divide(misses, np.hypot(1, misses) * softened, out=slope, where=np.abs(softened) > _TINY)
    return slope


def _check(samples: Sequence[Sample]) -> None:
    models = {sample.model for sample in samples}
    if len(models) < LEAST_NETWORKS:
        raise MeasurementError(
            f"measurements of {len(models)} network(s) are too few to fit a machine's coefficients",
            expected=f"{LEAST_NETWORKS} or more",
            next_step="give it longer to convert them: --time 10min",
        )
    for sample in samples:
        if not math.isfinite(sample.seconds) or sample.seconds <= 0:
            raise MeasurementError(
                f"a latency of {sample.seconds} s cannot be ({sample.model})",
                expected="a positive number of seconds",
            )


def _groups(table: KernelTable) -> list[Group]:
    """Return the group of each kernel: its variant, or its class."""
    return [
        variant or (KERNEL_CLASSES[index] if index >= 0 else "movement")
        for variant, index in zip(table.variants, table.classes, strict=True)
    ]


def _stack(tables: Sequence[KernelTable], groups: Sequence[Sequence[int]]) -> _Rows:
    def column(values: Sequence[Floats]) -> Floats:
        joined: Floats = np.concatenate(values)
        return joined

    return _Rows(
        groups=np.concatenate([np.array(group, dtype=np.int64) for group in groups]),
        weights=column([t.weight_bytes for t in tables]),
        macs=column([t.macs for t in tables]),
        moved=column([t.read_bytes + t.written_bytes + t.weight_bytes for t in tables]),
        dispatches=column([t.dispatches for t in tables]),
        patches=column([t.patches for t in tables]),
        outputs=column([t.outputs for t in tables]),
        widths=column([t.widths for t in tables]),
        starts=np.cumsum([0, *(len(t.ops) for t in tables[:-1])]),
    )


def _class_of(group: Group) -> KernelClass:
    return group if group in CLASS_INDEX else class_of_variant(group)  # type: ignore[arg-type]


def _parent(group: Group) -> Group:
    """Return the group whose coefficients this one's are held to; itself where there is none."""
    if group in _PARENTS:
        return _PARENTS[group]
    return group if group in CLASS_INDEX else _class_of(group)
