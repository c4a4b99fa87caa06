"""Calibrate this machine: a profile whose coefficients rest on microbenchmarks run here."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgesdk.cache import Cache, key_of
from edgesdk.calibrating.emitting import EmittedNetwork, Job, Refused, emit_all
from edgesdk.calibrating.fitting import fit_machine
from edgesdk.calibrating.measuring import ROUNDS, Contender, Rounds, time_rounds
from edgesdk.calibrating.microbenchmark import Microbenchmark
from edgesdk.cost.fit import Sample
from edgesdk.device import DeviceProfile, Runtime
from edgesdk.device_document import read_profile
from edgesdk.device_files import profile_folders
from edgesdk.errors import TargetUnavailable, UsageError
from edgesdk.progress import Progress
from edgesdk.scheme import Scheme
from edgesdk.target import find_target

HOST = "host"
LIMIT_S = 300.0
"""How long a calibration takes at most unless asked otherwise, loading and fitting included."""

_STATE = "rounds.json"

# Of the time limit, for converting and for timing; loading what was converted takes the rest.
_EMISSION_SHARE = 0.55
_TIMING_SHARE = 0.13

# Other schemes keep their estimates: most microbenchmarks are convolutions, which int4 and formats
# with ranges found at run time hardly touch.
_CALIBRATED: tuple[Scheme, ...] = ("fp32", "int8")


@dataclass(frozen=True, kw_only=True)
class HostCalibration:
    """A machine's profile and how it came about.

    ``networks`` were timed; ``left_out`` are those that there was no time to convert.
    ``skipped`` says what was left out and why: targets whose toolchain is missing, networks that a
    target cannot emit or a runtime cannot load. ``spread`` is how far a typical round lay above the
    least disturbed one: 1.02 on a quiet machine, and a reason to repeat above 1.2.
    """

    profile: DeviceProfile
    skipped: Mapping[str, str]
    networks: int
    left_out: tuple[str, ...]
    spread: float


def all_threads() -> tuple[int, ...]:
    """Return the thread counts to calibrate unless asked otherwise: one, and all there are."""
    return tuple(sorted({1, len(os.sched_getaffinity(0))}))


def calibrate_host(
    benchmarks: Sequence[Microbenchmark],
    *,
    threads: Sequence[int],
    cache: Cache,
    progress: Progress,
    rounds: int = ROUNDS,
    limit_s: float = LIMIT_S,
) -> HostCalibration:
    """Return this machine's profile, from the benchmarks emitted, timed and fitted.

    The runtimes of the first thread count come first, so they are what planning takes. A runtime
    whose toolchain is missing keeps its estimates. An interrupted calibration goes on where it was:
    files stay in the cache, and finished rounds in its scratch folder until the end. It takes about
    ``limit_s``: what is not converted after half of that is left out, but for rows of one kernel
    and a whole network of each family, without which nothing can be said.

    Raises ``TargetUnavailable`` where no toolchain is here, and ``UsageError`` for thread counts
    that cannot be.
    """
    _check_threads(threads)
    base = packaged_host()
    skipped = _missing_toolchains(base)
    runtimes = [runtime for runtime in base.runtime if runtime.target not in skipped]
    if not runtimes:
        raise TargetUnavailable(
            "no toolchain is here to calibrate with", next_step="; ".join(skipped.values())
        )
    emitted = _emit(benchmarks, runtimes, cache, progress, skipped, limit_s=limit_s)
    made = {name for name, _, _ in emitted} | {key.partition("|")[0] for key in skipped}
    left_out = tuple(item.name for item in benchmarks if item.name not in made)
    contenders = _contenders(benchmarks, emitted, runtimes, threads)
    key = key_of("calibrate", *sorted(item.key for item in contenders), rounds)
    state = cache.scratch("calibrate", key) / _STATE
    timed, refused = time_rounds(
        contenders, state, progress, rounds=rounds, limit_s=_TIMING_SHARE * limit_s
    )
    skipped |= {key: reason for key, reason in refused.items() if key.endswith("|1")}
    progress.step("Fitting the coefficients")
    families = {item.name: item.family for item in benchmarks if item.family is not None}
    seconds = timed.seconds()
    measured = [
        _fitted(runtime, count, contenders, seconds, families, source=_source(timed, count))
        for count in threads
        for runtime in runtimes
    ]
    kept = [runtime for runtime in base.runtime if runtime.target in skipped]
    cache.drop_scratch("calibrate", key)
    return HostCalibration(
        profile=replace(
            base,
            title="This machine, calibrated",
            calibrated_from=HOST,
            runtime=(*measured, *kept),
            notes=("written by 'edgesdk devices calibrate host'; run it again after an upgrade",),
        ),
        skipped=skipped,
        networks=len(benchmarks) - len(left_out),
        left_out=left_out,
        spread=timed.spread(),
    )


def packaged_host() -> DeviceProfile:
    """Return the profile of ``host`` that edgesdk brings, whatever was calibrated before."""
    return read_profile(profile_folders()[0] / f"{HOST}.toml")


def _check_threads(threads: Sequence[int]) -> None:
    available = len(os.sched_getaffinity(0))
    if not threads or len(set(threads)) != len(threads):
        raise UsageError("thread counts are named once each", next_step="--threads 1 --threads 2")
    for count in threads:
        if not 1 <= count <= available:
            raise UsageError(
                f"{count} threads cannot be calibrated here",
                expected=f"between 1 and the {available} cores this process may use",
            )


def _missing_toolchains(base: DeviceProfile) -> dict[str, str]:
    found = {}
    for name in base.targets:
        toolchain = find_target(name).toolchain()
        if not toolchain.is_complete:
            found[name] = f"its toolchain is missing: {toolchain.install}"
    return found


def _emit(
    benchmarks: Sequence[Microbenchmark],
    runtimes: Sequence[Runtime],
    cache: Cache,
    progress: Progress,
    skipped: dict[str, str],
    *,
    limit_s: float,
) -> dict[tuple[str, str, Scheme], EmittedNetwork]:
    needed, welcome = _by_need(benchmarks)
    jobs = [
        Job(benchmark=item.name, runtimes=tuple(runtimes), schemes=_CALIBRATED)
        for item in (*needed, *welcome)
    ]
    until_s = time.monotonic() + _EMISSION_SHARE * limit_s
    progress.step("Emitting the microbenchmarks")
    emitted: dict[tuple[str, str, Scheme], EmittedNetwork] = {}
    for done, (job, results) in enumerate(
        emit_all(jobs, cache, needed=len(needed), until_s=until_s)
    ):
        progress.advance(done + 1, len(jobs), job.benchmark)
        for result in results:
            if isinstance(result, Refused):
                skipped[f"{result.name}|{result.target}|{result.scheme}"] = result.reason
            else:
                emitted[result.name, result.target, result.scheme] = result
    return emitted


def _by_need(
    benchmarks: Sequence[Microbenchmark],
) -> tuple[list[Microbenchmark], list[Microbenchmark]]:
    """Return rows of one kernel with the first whole network of each family, and all others."""
    needed: list[Microbenchmark] = []
    welcome: list[Microbenchmark] = []
    seen: set[str | None] = set()
    for item in benchmarks:
        (welcome if item.family in seen else needed).append(item)
        seen |= {item.family} - {None}
    return needed, welcome


def _contenders(
    benchmarks: Sequence[Microbenchmark],
    emitted: Mapping[tuple[str, str, Scheme], EmittedNetwork],
    runtimes: Sequence[Runtime],
    threads: Sequence[int],
) -> list[Contender]:
    inputs = {item.name: item.example_inputs() for item in benchmarks}
    hosts = {}
    for runtime in runtimes:
        host = find_target(runtime.target).host_runtime(runtime)
        if host is not None:
            hosts[runtime.target] = host.name
    return [
        Contender(
            key=_key(name, target, scheme, count),
            network=emitted[name, target, scheme],
            inputs=inputs[name],
            target=target,
            host_runtime=hosts[target],
            threads=count,
        )
        # Sorted, since the order in which converters finish must not decide what a key holds.
        for name, target, scheme in sorted(emitted)
        for count in threads
        if target in hosts
    ]


def _key(name: str, target: str, scheme: Scheme, threads: int) -> str:
    return f"{name}|{target}|{scheme}|{threads}"


def _source(timed: Rounds, threads: int) -> str:
    plural = "s" if threads > 1 else ""
    count = len(timed.quarters_ms)
    return f"microbenchmarks on this machine, {threads} thread{plural}, best of {count} rounds"


def _fitted(
    runtime: Runtime,
    threads: int,
    contenders: Sequence[Contender],
    seconds: Mapping[str, float],
    families: Mapping[str, str],
    *,
    source: str,
) -> Runtime:
    """Return the runtime on that many threads with the calibrated schemes fitted."""
    precisions = dict(runtime.precisions)
    for scheme in _CALIBRATED:
        prior = precisions[scheme]
        samples = [
            Sample(
                model=item.network.name,
                graph=item.network.graph,
                scheme=scheme,
                seconds=seconds[item.key],
            )
            for item in contenders
            if (item.target, item.network.scheme, item.threads) == (runtime.target, scheme, threads)
            and item.key in seconds
        ]
        precisions[scheme] = fit_machine(samples, prior, families=families, source=source)
    return replace(runtime, threads=threads, precisions=precisions)
