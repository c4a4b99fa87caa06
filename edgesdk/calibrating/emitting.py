"""Emit networks for timing: real files through the real targets, kept in the cache."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
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
_MOST_PROCESSES = 4  # each holds the converters, close to a gigabyte


@dataclass(frozen=True, kw_only=True)
class Job:
    """A microbenchmark, by name, to emit for each runtime in each scheme, which share work."""

    benchmark: str
    runtimes: tuple[Runtime, ...]
    schemes: tuple[Scheme, ...]


@dataclass(frozen=True, kw_only=True)
class EmittedNetwork:
    """A network's file for one target and scheme, and what the network computes."""

    name: str
    target: str
    scheme: Scheme
    graph: OpGraph
    folder: Path
    emission: Emission


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A network that a target cannot emit in a scheme, and why."""

    name: str
    target: str
    scheme: Scheme
    reason: str


def emit_network(
    graph: OpGraph, module: nn.Module, inputs: Tensors, *,
    runtime: Runtime, scheme: Scheme, cache: Cache,
) -> EmittedNetwork:  # fmt: skip
    """Return the network emitted for a runtime, from the cache if it was emitted before.

    ``graph`` is the module traced with the inputs, and bears the network's name. int8 ranges come
    from the example inputs alone: they decide accuracy, which nobody asks for here, and not speed.
    Raises ``UnsupportedModel`` where the target cannot emit it.
    """
    target = find_target(runtime.target)
    packages = [(package.name, package.found) for package in target.toolchain().packages]
    key = key_of(
        graph, runtime.target, runtime.delegate, runtime.integer_io, scheme, repr(packages)
    )

    def build(folder: Path) -> None:
        (folder / _FILES).mkdir()
        emission = target.emit(_compressed(module, inputs, scheme), runtime, folder / _FILES)
        (folder / _EMISSION).write_text(to_json(emission), encoding="utf-8")

    folder = cache.folder("benchmark", key, build)
    return EmittedNetwork(
        name=graph.model,
        target=runtime.target,
        scheme=scheme,
        graph=graph,
        folder=folder / _FILES,
        emission=read_json(Emission, folder / _EMISSION),
    )


def emit_all(
    jobs: Sequence[Job], cache: Cache, *, needed: int, until_s: float
) -> Iterator[tuple[Job, tuple[EmittedNetwork | Refused, ...]]]:
    """Yield each job with its files, or the reasons why there are none, as they become ready.

    There is a process for each of up to four cores. They come in their order, and after ``until_s``
    by the monotonic clock none is begun beyond the first ``needed``, nor yielded. Raises what is
    wrong with a toolchain or the disk; what a target cannot express is yielded as ``Refused``.
    """
    pool = ProcessPoolExecutor(
        max_workers=min(len(os.sched_getaffinity(0)), _MOST_PROCESSES),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_become_quiet,
    )
    try:
        futures = {pool.submit(_emit_job, job, cache.root): job for job in jobs}
        for future in as_completed(futures):
            if not future.cancelled():
                yield futures[future], future.result()
            if time.monotonic() > until_s:
                for waiting in list(futures)[needed:]:
                    waiting.cancel()  # what runs already is not stopped by this
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _become_quiet() -> None:
    """Leave Ctrl-C to the parent, the other cores to the other processes, and be silent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)


def _emit_job(job: Job, cache_root: Path) -> tuple[EmittedNetwork | Refused, ...]:
    benchmark = _by_name(job.benchmark)
    module, inputs = benchmark.module(), benchmark.example_inputs()
    graph = trace(module, inputs, name=benchmark.name)
    cache = Cache(cache_root)

    def emit(runtime: Runtime, scheme: Scheme) -> EmittedNetwork | Refused:
        try:
            return emit_network(graph, module, inputs, runtime=runtime, scheme=scheme, cache=cache)
        except UnsupportedModel as problem:
            return Refused(
                name=graph.model, target=runtime.target, scheme=scheme, reason=problem.found
            )

    return tuple(emit(runtime, scheme) for runtime in job.runtimes for scheme in job.schemes)


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
