"""Emit networks for timing: real files through the real targets, kept in the cache."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edgesdk.cache import Cache, key_of
from edgesdk.calibrating.microbenchmark import Microbenchmark
from edgesdk.calibrating.microbenchmarks import microbenchmarks
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.document import read_json, to_json
from edgesdk.errors import UnsupportedModel
from edgesdk.graph import OpGraph
from edgesdk.scheme import Scheme
from edgesdk.target import Emission, find_target
from edgesdk.task import InputSpec, OutputSpec, Tensors, output_tensors
from edgesdk.trace import trace

_FILES, _EMISSION = "files", "emission.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A microbenchmark, by name, to emit in a scheme for a runtime."""

    benchmark: str
    runtime: Runtime
    scheme: Scheme


@dataclass(frozen=True, kw_only=True)
class EmittedNetwork:
    """A network's file for one target and scheme, and what the network computes."""

    name: str
    scheme: Scheme
    graph: OpGraph
    folder: Path
    emission: Emission


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A network that a target cannot emit in a scheme, and why."""

    name: str
    scheme: Scheme
    reason: str


def emit_network(
    name: str, module: nn.Module, inputs: Tensors, *,
    runtime: Runtime, scheme: Scheme, cache: Cache,
) -> EmittedNetwork:  # fmt: skip
    """Return the network emitted for a runtime, from the cache if it was emitted before.

    int8 ranges come from the example inputs alone: they decide accuracy, which nobody asks for
    here, and not speed. Raises ``UnsupportedModel`` where the target cannot emit it.
    """
    target = find_target(runtime.target)
    packages = [(package.name, package.found) for package in target.toolchain().packages]
    graph = trace(module, inputs, name=name)
    key = key_of(
        graph, runtime.target, runtime.delegate, runtime.integer_io, scheme, repr(packages)
    )

    def build(folder: Path) -> None:
        (folder / _FILES).mkdir()
        emission = target.emit(_compressed(module, inputs, scheme), runtime, folder / _FILES)
        (folder / _EMISSION).write_text(to_json(emission), encoding="utf-8")

    folder = cache.folder("benchmark", key, build)
    return EmittedNetwork(
        name=name,
        scheme=scheme,
        graph=graph,
        folder=folder / _FILES,
        emission=read_json(Emission, folder / _EMISSION),
    )


def emit_all(jobs: Sequence[Job], cache: Cache) -> Iterator[tuple[Job, EmittedNetwork | Refused]]:
    """Yield each job with its file or the reason why there is none, as they become ready.

    Each target converts in a process of its own, so that two cores are busy. Raises what is
    wrong with a toolchain or the disk; what a target cannot express is yielded as ``Refused``.
    """
    pools: dict[str, ProcessPoolExecutor] = {}
    futures: dict[Future[EmittedNetwork | Refused], Job] = {}
    try:
        for job in jobs:
            if job.runtime.target not in pools:
                pools[job.runtime.target] = ProcessPoolExecutor(
                    max_workers=1,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_become_quiet,
                )
            futures[pools[job.runtime.target].submit(_emit_job, job, cache.root)] = job
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for pool in pools.values():
            pool.shutdown(wait=True, cancel_futures=True)


def _become_quiet() -> None:
    """Leave Ctrl-C to the parent, and keep the converters' notices away from the user."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)


def _emit_job(job: Job, cache_root: Path) -> EmittedNetwork | Refused:
    benchmark = _by_name(job.benchmark)
    try:
        return emit_network(
            benchmark.name,
            benchmark.module(),
            benchmark.example_inputs(),
            runtime=job.runtime,
            scheme=job.scheme,
            cache=Cache(cache_root),
        )
    except UnsupportedModel as problem:
        return Refused(name=job.benchmark, scheme=job.scheme, reason=problem.found)


def _by_name(name: str) -> Microbenchmark:
    return next(item for item in microbenchmarks() if item.name == name)


def _compressed(module: nn.Module, inputs: Tensors, scheme: Scheme) -> CompressedModel:
    outputs = output_tensors(module(*inputs))
    return CompressedModel(
        module=module,
        example_inputs=inputs,
        scheme=scheme,
        calibration=(inputs,),
        inputs=tuple(InputSpec(name=f"input_{i}") for i, _ in enumerate(inputs)),
        outputs=tuple(OutputSpec(name=f"output_{i}") for i, _ in enumerate(outputs)),
    )
