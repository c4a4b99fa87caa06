"""Fit the latency coefficients of the packaged device profiles to published measurements.

    python benchmarks/roofline.py [--measurements ../shared/measurements]

Prints, for each device, runtime and precision that anybody has published measurements of: the four
coefficients, on how many networks they rest, and how well they predict networks they have not seen
(leaving one whole model out at a time). The profiles hold these numbers. Where nobody has measured,
a profile's numbers are ``estimated`` and say from what; they do not come from here.

A network is left out where it holds operators that the cost model has no special knowledge of
(3-D convolutions run 25 times slower under one delegate than under another, for instance); which,
is printed.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlperf_tiny import reference_graphs
from numpy.typing import NDArray
from scipy.optimize import least_squares

from edgesdk.cost.fusion import fuse
from edgesdk.cost.latency import PRICED_KINDS, traffic_bytes
from edgesdk.errors import ProfileError
from edgesdk.graph import OpGraph
from edgesdk.scheme import Scheme
from edgesdk.trace import graph_from_json

MEASUREMENTS = Path(__file__).parents[2] / "shared" / "measurements"
COVERAGE = 0.9

# Scatter of published latencies around a roofline, and how far a coefficient may lie from what its
# class of unit does before that counts as much as one measurement off by its scatter.
_SCATTER = math.log(1.2)
_PRIOR_SPREAD = math.log(5)

Floats = NDArray[np.float64]
Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """What a profile states of one precision."""

    mac_per_s: float
    bytes_per_s: float
    op_overhead_s: float
    inference_overhead_s: float

    @classmethod
    def from_logs(cls, logs: Floats) -> Coefficients:
        """Return the coefficients whose costs (seconds each) have these logarithms."""
        mac, byte, op, inference = np.exp(logs)
        return cls(
            mac_per_s=1 / mac,
            bytes_per_s=1 / byte,
            op_overhead_s=op,
            inference_overhead_s=inference,
        )

    @property
    def logs(self) -> Floats:
        """The logarithms of seconds per MAC, per byte, per operator and per inference."""
        costs = (1 / self.mac_per_s, 1 / self.bytes_per_s)
        return np.log([*costs, self.op_overhead_s, self.inference_overhead_s])


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement: MACs and bytes of each kernel ``[K, 2]``, and the seconds they took.

    ``board`` tells devices apart that share coefficients up to a factor; 0 is the reference.
    """

    model: str
    kernels: Floats
    seconds: float
    board: int = 0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Coefficients, the number of networks behind them, and predicted/measured on unseen ones."""

    title: str
    source: str
    coefficients: Coefficients
    networks: int
    held_out: Floats
    error_factor: float

    @property
    def median_error(self) -> float:
        """Median of |predicted - measured| / measured over what was left out."""
        return float(np.median(np.abs(self.held_out - 1)))


# What units of a class do, to hold the coefficients that a set of measurements leaves open.
NPU_FP16 = Coefficients(
    mac_per_s=8e12, bytes_per_s=60e9, op_overhead_s=2e-6, inference_overhead_s=1e-4
)
NPU_INT8 = Coefficients(
    mac_per_s=16e12, bytes_per_s=60e9, op_overhead_s=2e-6, inference_overhead_s=1e-4
)
CORTEX_M4_120_MHZ = Coefficients(
    mac_per_s=60e6, bytes_per_s=120e6, op_overhead_s=1e-5, inference_overhead_s=1e-5
)


def predicted_seconds(logs: Floats, kernels: Floats) -> float:
    """Return the roofline's latency of kernels ``[K, 2]`` under log-coefficients ``[4]``."""
    mac, byte, op, inference = np.exp(logs[:4])
    busy = np.maximum(kernels[:, 0] * mac, kernels[:, 1] * byte).sum()
    return float(busy + len(kernels) * op + inference)


def fit_logs(samples: Sequence[Sample], prior: Coefficients) -> Floats:
    """Return the four log-coefficients, then one log-factor for each board but the reference.

    Least squares on log(predicted / measured) with soft-L1 loss, so that a suspect row weighs
    little, regularised towards ``prior``.
    """
    boards = max(sample.board for sample in samples)
    centre = prior.logs

    def residuals(logs: Floats) -> Floats:
        ratios = [
            math.log(predicted_seconds(logs, sample.kernels) / sample.seconds)
            + _board_log(logs, sample.board)
            for sample in samples
        ]
        return np.concatenate([np.array(ratios) / _SCATTER, (logs[:4] - centre) / _PRIOR_SPREAD])

    starts = [np.append(centre + shift, np.zeros(boards)) for shift in (0.0, 1.0, -1.0)]
    fits = [least_squares(residuals, start, loss="soft_l1") for start in starts]
    best: Floats = min(fits, key=lambda fit: fit.cost).x
    return best


def _board_log(logs: Floats, board: int) -> float:
    return float(logs[3 + board]) if board else 0.0


def error_factor(ratios: Floats) -> float:
    """Return the smallest factor that holds nine in ten of the ratios predicted/measured."""
    distances = np.sort(np.abs(np.log(ratios)))
    return math.exp(distances[math.ceil(COVERAGE * len(distances)) - 1])


def fit(title: str, source: str, samples: Sequence[Sample], prior: Coefficients) -> Fit:
    """Return the coefficients of a set of measurements, judged leaving one model out at a time."""
    held_out = []
    for model in {sample.model: None for sample in samples}:
        logs = fit_logs([sample for sample in samples if sample.model != model], prior)
        held_out += [
            predicted_seconds(logs, sample.kernels)
            * math.exp(_board_log(logs, sample.board))
            / sample.seconds
            for sample in samples
            if sample.model == model
        ]
    return Fit(
        title=title,
        source=source,
        coefficients=Coefficients.from_logs(fit_logs(samples, prior)[:4]),
        networks=len({sample.model for sample in samples}),
        held_out=np.array(held_out),
        error_factor=error_factor(np.array(held_out)),
    )


def transfer(title: str, source: str, base: Fit, samples: Sequence[Sample]) -> Fit:
    """Return another fit's coefficients scaled by the median of measured/predicted on ``samples``.

    For sets too small to fit. Each sample is judged by the scale of the others; the error factor
    is never below that of the fit the shape comes from.
    """
    logs = base.coefficients.logs
    ratios = np.array([s.seconds / predicted_seconds(logs, s.kernels) for s in samples])
    held_out = np.array(
        [np.median(np.delete(ratios, index)) / ratio for index, ratio in enumerate(ratios)]
    )
    return Fit(
        title=title,
        source=source,
        coefficients=Coefficients.from_logs(logs + math.log(np.median(ratios))),
        networks=len(samples),
        held_out=held_out,
        error_factor=max(base.error_factor, error_factor(held_out)),
    )


def transfer_by_board(title: str, source: str, base: Fit, ratios: Floats) -> Fit:
    """Return another board's coefficients scaled by the median ratio of the two boards.

    ``ratios`` compare the boards with one engine and one model each. Nothing was measured with the
    engine in question on the board in question, so both uncertainties add (as logarithms, in
    quadrature).
    """
    ratio = float(np.median(ratios))
    spread = error_factor(ratios / ratio)
    combined = math.exp(math.hypot(math.log(base.error_factor), math.log(spread)))
    return Fit(
        title=title,
        source=source,
        coefficients=Coefficients.from_logs(base.coefficients.logs + math.log(ratio)),
        networks=base.networks,
        held_out=base.held_out,
        error_factor=combined,
    )


def kernels_of(graph: OpGraph, scheme: Scheme) -> Floats:
    """Return MACs and bytes of each kernel, ``[K, 2]``."""
    rows = [[kernel.op.macs, traffic_bytes(kernel, graph, scheme)] for kernel in fuse(graph)]
    return np.array(rows, dtype=np.float64)


def load_graphs(folder: Path) -> tuple[dict[str, OpGraph], dict[str, str]]:
    """Return the graphs that can be judged, and why each other one cannot."""
    graphs, left_out = {}, {}
    for path in sorted(folder.glob("*.json.gz")):
        name = path.name.removesuffix(".json.gz")
        with gzip.open(path) as stream:
            data = json.load(stream)
        try:
            graph = graph_from_json(data, name=name)
        except ProfileError as problem:
            left_out[name] = str(problem)
            continue
        unpriced = {op.op.kind for op in fuse(graph)} - PRICED_KINDS
        if unpriced:
            left_out[name] = f"operators without special knowledge: {', '.join(sorted(unpriced))}"
        else:
            graphs[name] = graph
    return graphs, left_out


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The published rows and the graphs of what they ran."""

    rows: Sequence[Row]
    graphs: Mapping[str, OpGraph]

    def samples(self, scheme: Scheme, board: int = 0, **where: str) -> list[Sample]:
        """Return the rows whose columns equal ``where``, one of each model's (the median)."""
        chosen: dict[str, list[float]] = {}
        for row in self.rows:
            if row["model"] in self.graphs and all(row[key] == where[key] for key in where):
                chosen.setdefault(row["model"], []).append(1e-3 * float(row["latency_ms"]))
        return [
            Sample(
                model=model,
                kernels=kernels_of(self.graphs[model], scheme),
                seconds=float(np.median(seconds)),
                board=board,
            )
            for model, seconds in chosen.items()
        ]

    def board_ratios(self, engines: Sequence[tuple[str, str, str, str]]) -> Floats:
        """Return latency over latency of two boards, for each engine and model of both."""
        ratios = []
        for source, runtime, board, reference in engines:
            same = {"source": source, "runtime": runtime, "precision": "int8"}
            theirs = {s.model: s.seconds for s in self.samples("int8", device=reference, **same)}
            ours = self.samples("int8", device=board, **same)
            ratios += [s.seconds / theirs[s.model] for s in ours if s.model in theirs]
        return np.array(ratios)


# The same engine on NUCLEO-H7A3ZI-Q and on NUCLEO-L4R5ZI: round, submitter and the two spellings.
H7A3ZI_OVER_L4R5ZI = (
    ("mlperf-tiny-v0.7", "STMicroelectronics", "NUCLEO-H7A3ZI-Q", "NUCLEO_L4R5ZI"),
    ("mlperf-tiny-v1.0", "STMicroelectronics", "NUCLEO-H7A3ZI-Q", "NUCLEO_L4R5ZI"),
    ("mlperf-tiny-v1.1", "STMicroelectronics", "NUCLEO_H7A3ZI_Q", "NUCLEO_L4R5ZI"),
    ("mlperf-tiny-v1.2", "STMicroelectronics", "NUCLEO_H7A3ZI_Q", "NUCLEO_L4R5ZI"),
    *(
        ("mlperf-tiny-v1.1", "Krai", f"NUCLEO-H7A3ZI-Q_{engine}", f"NUCLEO-L4R5ZI_{engine}")
        for engine in ("X-CUBE-AI-7.3", "X-CUBE-AI-8.0")
    ),
    ("mlperf-tiny-v1.1", "bosch", "NUCLEO_H7A3ZI", "NUCLEO_L4R5ZI"),
    ("mlperf-tiny-v1.2", "bosch", "NUCLEO_H7A3ZI_int8", "NUCLEO_L4R5ZI_int8"),
    ("mlperf-tiny-v1.1", "plumerai", "NUCLEO-H7A3ZI-Q", "NUCLEO-L4R5ZI"),
)


def fit_profiles(evidence: Evidence) -> dict[tuple[str, str, Scheme], Fit]:
    """Return what the packaged profiles hold, by device, target and scheme."""
    return {**_galaxy_s24(evidence), **_iphone_15_pro(evidence), **_nucleo_h7a3zi_q(evidence)}


def _galaxy_s24(evidence: Evidence) -> dict[tuple[str, str, Scheme], Fit]:
    def rows(precision: str, scheme: Scheme) -> list[Sample]:
        return evidence.samples(
            scheme, device="Samsung Galaxy S24", runtime="tflite", precision=precision
        )

    name = "Samsung Galaxy S24, LiteRT with the Qualcomm delegate, NPU"
    source = "quic/ai-hub-models@52c080d perf.yaml"
    return {
        ("samsung_galaxy_s24", "tflite", "fp16"): fit(
            f"{name}, float executed as fp16", source, rows("float", "fp16"), NPU_FP16
        ),
        ("samsung_galaxy_s24", "tflite", "int8"): fit(
            f"{name}, w8a8", source, rows("w8a8", "int8"), NPU_INT8
        ),
    }


def _iphone_15_pro(evidence: Evidence) -> dict[tuple[str, str, Scheme], Fit]:
    a14 = [
        sample
        for phone in ("iPhone 12", "iPhone 12 Pro")
        for sample in evidence.samples("fp16", device=phone, precision="float16")
    ]
    shape = fit(
        "iPhone 12 and 12 Pro (A14), Core ML, float16",
        "READMEs of apple/ml-mobileone, apple/ml-fastvit, snap-research/EfficientFormer",
        a14,
        NPU_FP16,
    )
    source = "Core ML Tools guide 9.0, performance tables"
    half = evidence.samples("fp16", device="iPhone 15 Pro", precision="float16")
    quantized = evidence.samples("int8", device="iPhone 15 Pro", precision="w8a8")
    name = "iPhone 15 Pro, Core ML"
    return {
        ("iphone_12", "coreml", "fp16"): shape,
        ("iphone_15_pro", "coreml", "fp16"): transfer(f"{name}, float16", source, shape, half),
        ("iphone_15_pro", "coreml", "int8"): transfer(f"{name}, w8a8", source, shape, quantized),
    }


def _nucleo_h7a3zi_q(evidence: Evidence) -> dict[tuple[str, str, Scheme], Fit]:
    boards = ("microtvm_cmsis_nn/NUCLEO_L4R5ZI", "microtvm_cmsis_nn/NRF5340-DK")
    cmsis_nn = [
        sample
        for board, device in enumerate(boards)
        for sample in evidence.samples("int8", board=board, device=device)
    ]
    shape = fit(
        "NUCLEO-L4R5ZI (with NRF5340-DK), CMSIS-NN kernels under microTVM, int8",
        "mlcommons/tiny_results_v1.0, OctoML's microtvm_cmsis_nn rows",
        cmsis_nn,
        CORTEX_M4_120_MHZ,
    )
    return {
        ("nucleo_l4r5zi", "tflite", "int8"): shape,
        ("nucleo_h7a3zi_q", "tflite", "int8"): transfer_by_board(
            "NUCLEO-H7A3ZI-Q, CMSIS-NN, from NUCLEO-L4R5ZI by the ratio of the boards, int8",
            "mlcommons/tiny_results_v0.7 to v1.2, ST, Krai, Bosch and Plumerai on both boards",
            shape,
            evidence.board_ratios(H7A3ZI_OVER_L4R5ZI),
        ),
    }


def load_evidence(folder: Path) -> tuple[Evidence, dict[str, str]]:
    """Return the measurements folder's evidence, and why each graph that is left out is."""
    graphs, left_out = load_graphs(folder / "graphs")
    with (folder / "published_latency.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return Evidence(rows=rows, graphs={**graphs, **reference_graphs()}), left_out


def main() -> None:
    """Print every fit and its error on unseen networks."""
    parser = argparse.ArgumentParser(description="Fit the profiles' latency coefficients.")
    parser.add_argument("--measurements", type=Path, default=MEASUREMENTS)
    evidence, left_out = load_evidence(parser.parse_args().measurements)
    for result in fit_profiles(evidence).values():
        found = result.coefficients
        print(f"{result.title}\n  {result.source}, {result.networks} networks")
        print(f"  mac_per_s            {found.mac_per_s:.3g}")
        print(f"  bytes_per_s          {found.bytes_per_s:.3g}")
        print(f"  op_overhead_s        {found.op_overhead_s:.3g}")
        print(f"  inference_overhead_s {found.inference_overhead_s:.3g}")
        print(f"  error_factor         {result.error_factor:.3g}")
        print(f"  median error on unseen networks {100 * result.median_error:.0f} %\n")
    print("Left out:")
    for name, reason in left_out.items():
        print(f"  {name}: {reason}")


if __name__ == "__main__":
    main()
