"""Compare predicted with measured latency here, after ``edgesdk devices calibrate host``.

    python benchmarks/host_prediction.py [--profile host.toml] [--rounds 10] [NETWORK ...]

The networks are none of those that calibration measures: ``host_networks.py`` holds those that its
developers looked at, ``fresh_networks.py`` those that nobody did. Each is emitted in fp32 and int8
for ExecuTorch and LiteRT and timed on one thread, all in turn in every round. What counts is what a
quarter of a round's runs stay within, in the least disturbed round: the same that calibration
counts. Needs transformers.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from fresh_networks import SEEN, fresh_networks
from host_networks import Network, host_networks

from edgesdk.cache import Cache, default_root
from edgesdk.calibrating.emitting import emit_network
from edgesdk.calibrating.measuring import Contender, time_rounds
from edgesdk.compress.pooling import fit_windows
from edgesdk.cost.latency import predict_latency
from edgesdk.device import DeviceProfile
from edgesdk.device_files import load_device
from edgesdk.errors import UnsupportedModel
from edgesdk.figure import Figure
from edgesdk.progress import Silent
from edgesdk.target import find_target
from edgesdk.trace import trace

SCHEMES = ("fp32", "int8")
TARGETS = ("executorch", "tflite")
NEAR = 0.25


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One network on one runtime in one scheme: what was predicted and what was measured."""

    network: str
    target: str
    scheme: str
    predicted: Figure
    measured_ms: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted.value / self.measured_ms

    @property
    def is_inside(self) -> bool:
        """Whether the measurement lies in the prediction's interval."""
        assert self.predicted.low is not None
        assert self.predicted.high is not None
        return self.predicted.low <= self.measured_ms <= self.predicted.high


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How well a set was predicted: shares of the measured latency."""

    count: int
    median_error: float
    near: float
    inside: float

    @classmethod
    def of(cls, comparisons: Sequence[Comparison]) -> Summary:
        """Return the summary of one or more comparisons."""
        errors = [abs(item.ratio - 1) for item in comparisons]
        return cls(
            count=len(errors),
            median_error=statistics.median(errors),
            near=sum(error <= NEAR for error in errors) / len(errors),
            inside=sum(item.is_inside for item in comparisons) / len(errors),
        )


def all_networks() -> dict[str, Callable[[], Network]]:
    """Return a builder for each network, by name."""
    return {**host_networks(), **fresh_networks()}


def build(name: str) -> Network:
    """Return the network of that name, with the same weights each time, as compiling emits it."""
    torch.manual_seed(0)
    network = all_networks()[name]()
    module, _ = fit_windows(network.module, network.inputs)
    return replace(network, module=module)


def contenders_of(names: Sequence[str], device: DeviceProfile, cache: Cache) -> list[Contender]:
    """Return every network emitted for every target and scheme; what is refused is printed."""
    found = []
    for name in names:
        network = build(name)
        graph = trace(network.module, network.inputs, name=name)
        for target in TARGETS:
            runtime = device.runtime_for(target)
            host = find_target(target).host_runtime(runtime)
            assert host is not None
            for scheme in SCHEMES:
                try:
                    emitted = emit_network(
                        graph,
                        network.module,
                        network.inputs,
                        runtime=runtime,
                        scheme=scheme,
                        cache=cache,
                    )
                except UnsupportedModel as problem:
                    print(f"not emitted: {name}, {target} {scheme}: {problem.found}")
                    continue
                found.append(
                    Contender(
                        key=f"{name}|{target}|{scheme}",
                        network=emitted,
                        inputs=network.inputs,
                        target=target,
                        host_runtime=host.name,
                        threads=1,
                    )
                )
    return found


def compare(
    device: DeviceProfile, contenders: Sequence[Contender], rounds: int
) -> tuple[list[Comparison], float]:
    """Return a comparison for each contender, and the spread of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        timed, refused = time_rounds(
            contenders, Path(folder) / "rounds.json", Silent(), rounds=rounds
        )
    for key, reason in refused.items():
        print(f"not loaded: {key}: {reason}")
    seconds = timed.seconds()
    comparisons = [
        Comparison(
            network=item.network.name,
            target=item.target,
            scheme=item.network.scheme,
            predicted=predict_latency(
                item.network.graph, device.runtime_for(item.target), item.network.scheme
            ).total,
            measured_ms=1e3 * seconds[item.key],
        )
        for item in contenders
        if item.key in seconds
    ]
    return comparisons, timed.spread()


def groups_of(comparisons: Sequence[Comparison]) -> list[tuple[str, list[Comparison]]]:
    """Return the comparisons by what decides how good they are, and all together at the end."""
    fresh = fresh_networks().keys() - SEEN
    groups = []
    for words, is_fresh in (("looked at", False), ("fresh", True)):
        known = [item for item in comparisons if (item.network in fresh) == is_fresh]
        for target in TARGETS:
            for scheme in SCHEMES:
                chosen = [c for c in known if (c.target, c.scheme) == (target, scheme)]
                groups.append((f"{words}, {target} {scheme}", chosen))
        groups.append((words, known))
    return [*groups, ("all", list(comparisons))]


def main() -> None:
    """Print the table and its summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="host")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("networks", nargs="*", default=sorted(all_networks()))
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    device = load_device(arguments.profile)
    contenders = contenders_of(arguments.networks, device, Cache(default_root()))
    comparisons, spread = compare(device, contenders, arguments.rounds)
    print(
        f"{'network':18}{'target':12}{'scheme':8}{'measured ms':>12}{'predicted':>11}{'ratio':>7}"
    )
    for item in comparisons:
        marks = ("" if abs(item.ratio - 1) <= NEAR else " far") + ("" if item.is_inside else " out")
        print(
            f"{item.network:18}{item.target:12}{item.scheme:8}{item.measured_ms:12.4f}"
            f"{item.predicted.value:11.4f}{item.ratio:7.2f}{marks}"
        )
    for name, group in groups_of(comparisons):
        if group:
            found = Summary.of(group)
            print(
                f"{name:26} {found.count:3} files: median error "
                f"{100 * found.median_error:.1f} %, within 25 % {100 * found.near:.0f} %, "
                f"in the interval {100 * found.inside:.0f} %"
            )
    print(f"a typical round took {spread:.3f} times the least disturbed one")


if __name__ == "__main__":
    main()
