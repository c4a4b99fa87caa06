"""Profiles with coefficients fitted to published rows: which rows count, and what they give."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgesdk.cost.energy import with_power
from edgesdk.cost.features import kernel_table
from edgesdk.cost.fit import PooledFit, Sample, check_samples, fit_pool
from edgesdk.cost.prior import Unit, prior_cost
from edgesdk.cost.published import Row, Suspect
from edgesdk.device import DeviceProfile, Runtime
from edgesdk.errors import MeasurementError
from edgesdk.graph import OpGraph
from edgesdk.scheme import FLOAT_SCHEMES, Scheme

PoolKey = tuple[str, Unit, bool]
"""Delegate, unit, and whether it computes in float: what is fitted together.

NPUs that only multiply integers are other hardware than those that do both: pooled, they made
predictions for the others worse."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The rows a fit uses, by pool, and how many it does not use, by reason."""

    samples: Mapping[PoolKey, tuple[Sample, ...]]
    left_out: Mapping[str, int]

    @property
    def used(self) -> int:
        """Number of rows behind the samples (of rows that repeat each other the median counts)."""
        return sum(len(samples) for samples in self.samples.values())


@dataclass(frozen=True, kw_only=True)
class Refit:
    """Profiles with new coefficients, the pools' fits, and what was left out."""

    profiles: tuple[DeviceProfile, ...]
    fits: Mapping[PoolKey, PooledFit]
    selection: Selection
    kept: Mapping[PoolKey, str]


def pool_of(runtime: Runtime) -> PoolKey:
    """Return the pool whose measurements say something about a runtime."""
    floats = any(item.scheme in FLOAT_SCHEMES for item in runtime.evidence)
    return runtime.delegate, runtime.unit, floats


def select(
    rows: Sequence[Row],
    profiles: Iterable[DeviceProfile],
    graphs: Mapping[str, OpGraph],
    suspects: Sequence[Suspect] = (),
) -> Selection:
    """Return the rows that profiles name as their evidence, as samples of the profiles' pools.

    Left out, and counted: rows no profile names, rows of a model without a graph or with operators
    that the cost model does not know, and suspects. Repeated rows of a setting count once.
    """
    names = {
        (item.device, item.runtime, item.precision): (profile.name, runtime, item)
        for profile in profiles
        for runtime in profile.runtime
        for item in runtime.evidence
    }
    unknown = {name for name, graph in graphs.items() if kernel_table(graph, "fp32").unpriced}
    found: dict[tuple[PoolKey, str, Scheme, str, str], list[float]] = {}
    left_out: Counter[str] = Counter()
    for row in rows:
        named = names.get((row.device, row.runtime, row.precision))
        reason = _reason(row, named is not None, graphs, unknown, suspects)
        if reason or named is None:
            left_out[reason] += 1
            continue
        board, runtime, item = named
        key = (pool_of(runtime), row.model, item.scheme, board, item.engine)
        found.setdefault(key, []).append(row.seconds)
    samples: dict[PoolKey, list[Sample]] = {}
    for (pool, model, scheme, board, engine), seconds in found.items():
        samples.setdefault(pool, []).append(
            Sample(
                model=model,
                graph=graphs[model],
                scheme=scheme,
                seconds=statistics.median(seconds),
                board=board,
                engine=engine,
            )
        )
    repeated = sum(len(seconds) - 1 for seconds in found.values())
    if repeated:
        left_out["repeats another row of its device, runtime and model (the median counts)"] = (
            repeated
        )
    return Selection(
        samples={pool: tuple(items) for pool, items in samples.items()}, left_out=left_out
    )


def refit(
    profiles: Sequence[DeviceProfile],
    rows: Sequence[Row],
    graphs: Mapping[str, OpGraph],
    suspects: Sequence[Suspect] = (),
    *,
    source: str,
) -> Refit:
    """Return the profiles with coefficients fitted to the rows that they name as evidence.

    A pool with too few networks keeps its coefficients, and ``kept`` says why. Raises
    ``MeasurementError`` where that leaves nothing to fit.
    """
    selection = select(rows, profiles, graphs, suspects)
    fits: dict[PoolKey, PooledFit] = {}
    kept: dict[PoolKey, str] = {}
    for pool, samples in selection.samples.items():
        try:
            check_samples(samples)
        except MeasurementError as problem:
            kept[pool] = str(problem)
            continue
        schemes = {sample.scheme for sample in samples}
        priors = {scheme: prior_cost(pool[1], scheme) for scheme in schemes}
        fits[pool] = fit_pool(samples, priors, source=source)
    if not fits:
        raise MeasurementError(
            "no profile can be fitted: " + ("; ".join(kept.values()) or "no row names one"),
            expected="rows of devices that a profile lists under [[runtime.evidence]], with graphs",
            next_step="'edgesdk devices show NAME' shows a profile; nothing was changed",
        )
    new = tuple(_refitted(profile, fits) for profile in profiles)
    new = tuple(with_power(profile, rows, source=source) for profile in new)
    return Refit(profiles=new, fits=fits, selection=selection, kept=kept)


def _reason(
    row: Row,
    named: bool,
    graphs: Mapping[str, OpGraph],
    unknown: set[str],
    suspects: Sequence[Suspect],
) -> str:
    if not named:
        return "of a device, runtime and precision that no profile names"
    if row.model not in graphs:
        return "of a network without a graph"
    if row.model in unknown:
        return "of a network with operators that the cost model does not know"
    for suspect in suspects:
        if suspect.is_about(row):
            return f"suspect, {row.model}: {suspect.reason}"
    return ""


def _refitted(profile: DeviceProfile, fits: Mapping[PoolKey, PooledFit]) -> DeviceProfile:
    return replace(
        profile,
        runtime=tuple(_refitted_runtime(profile.name, item, fits) for item in profile.runtime),
    )


def _refitted_runtime(board: str, runtime: Runtime, fits: Mapping[PoolKey, PooledFit]) -> Runtime:
    """Return the runtime with what its pool's fit says of the schemes that its rows measure."""
    fit = fits.get(pool_of(runtime))
    if fit is None:
        return runtime
    costs = dict(runtime.precisions)
    for scheme in {item.scheme for item in runtime.evidence} & set(costs):
        cost = fit.cost(scheme, board)
        if cost is not None:
            costs[scheme] = cost
    return replace(runtime, precisions=costs)
