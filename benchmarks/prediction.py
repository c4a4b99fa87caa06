"""How well latency is predicted for networks and boards that the fit has not seen.

    python benchmarks/prediction.py [--measurements ../shared/measurements] [--nested]

Prints, for each set of published rows, the median of |predicted - measured| / measured, the share
within 25 % and the share of measurements inside the 90 % interval, leaving one whole model out at a
time (for microcontrollers the pair of board and model, and the whole board), against

- MACs times a constant, the median of the setting's other models;
- a roofline of the data sheet's peak rate and memory bandwidth;
- per setting, a non-negative linear regression on MACs, bytes and kernels.

``--nested`` prints for the Snapdragon rows what is reached when the widths of the pulls are chosen
anew for each fifth of the networks, among ``CHOICES``, by the errors on the other four: what
choosing them on the same rows flatters the table by.

Graphs come from the measurements' folder and from ``benchmarks/graphs`` (``rebuild_graphs.py``).
An interval is judged by the errors on other networks than the one it is for. Rows that
``suspects.toml`` gives a reason against are not used, and counted; its w8a8 rows are only kept from
the fits, and judged like all others.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mlperf_tiny import reference_graphs
from scipy.optimize import nnls

from edgesdk.cost.features import Floats, traffic_bytes
from edgesdk.cost.fit import HeldOut, Sample, interval_factor, leave_out
from edgesdk.cost.fusion import fuse
from edgesdk.cost.pool import USUAL, Widths
from edgesdk.cost.prior import prior_cost
from edgesdk.cost.published import read_graphs, read_rows, read_suspects
from edgesdk.cost.refit import PoolKey, Selection, select
from edgesdk.device_files import load_device, profile_names
from edgesdk.precision_cost import PrecisionCost
from edgesdk.scheme import Scheme

MEASUREMENTS = Path(__file__).parents[2] / "shared" / "measurements"
SUSPECTS = Path(__file__).with_name("suspects.toml")
REBUILT = Path(__file__).with_name("graphs")

QUALCOMM: PoolKey = ("qualcomm", "npu", True)
NEURAL_ENGINE: PoolKey = ("neural_engine", "npu", True)
TENSORRT: PoolKey = ("tensorrt", "gpu", True)
CMSIS_NN: PoolKey = ("cmsis_nn", "cpu", False)

CHOICES: Mapping[str, Widths] = {
    "usual": USUAL,
    "engines differ by levels alone": replace(USUAL, engine_classes=1e-3),
    "schemes and engines freer": replace(USUAL, scheme_classes=0.6, engine_classes=0.6),
    "classes tighter": replace(USUAL, classes=(0.3, 0.6, 0.6, 0.3)),
}
_FOLDS = 5

# Peak int8 operations (two a MAC; half of it in fp16) and bytes per second, for the roofline
# baseline alone. Estimated: from what makers advertise of the generation (Apple's A14 11, A16 17,
# A17 Pro 35 TOPS; Qualcomm's 45 TOPS of 2023 and 100 of IQ-9075; Nvidia's 67 and 100 sparse TOPS,
# half of it dense) as remembered, not checked against a document.
_PEAKS: Mapping[str, tuple[float, float]] = {
    "samsung_galaxy_s24": (45e12, 77e9),
    "samsung_galaxy_s25": (45e12, 85e9),
    "snapdragon_8_elite_gen_5": (60e12, 85e9),
    "qualcomm_iq_9075": (100e12, 77e9),
    "iphone_12": (11e12, 34e9),
    "iphone_14_pro": (17e12, 51e9),
    "iphone_15_pro": (35e12, 51e9),
    "jetson_orin_nano_super": (33e12, 102e9),
    "jetson_orin_nx_16gb": (50e12, 102e9),
}
_WORK: dict[tuple[str, Scheme], Floats] = {}
_SHARE_OF_INT8: Mapping[str, float] = {"int8": 1.0, "fp16": 0.5, "fp32": 0.25}
_SNAPDRAGONS = (
    "samsung_galaxy_s24",
    "samsung_galaxy_s25",
    "snapdragon_8_elite_gen_5",
    "qualcomm_iq_9075",
)
# CoreMark a MHz as Arm publishes it for each core, and what dual 16-bit MACs (none on M0+) and
# Helium (M85) change for int8 products.
_CORE_SPEED: Mapping[str, float] = {
    "nucleo_l4r5zi": 3.54,
    "nrf5340_dk": 4.09,
    "nucleo_u575zi_q": 4.09,
    "disco_f746ng": 5.29,
    "nucleo_h7a3zi_q": 5.29,
    "nucleo_g0b1re": 2.46 / 3,
    "ek_ra8d1": 6.28 * 3,
}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A set's errors: ours and each baseline's, and how many measurements the intervals held."""

    title: str
    networks: int
    ratios: Mapping[str, Floats]
    covered: Floats

    def line(self) -> str:
        """Return the set as one row of the table."""
        ours = np.abs(self.ratios["edgesdk"] - 1)
        others = [
            f"{100 * float(np.median(np.abs(ratios - 1))):10.0f} %"
            for name, ratios in self.ratios.items()
            if name != "edgesdk"
        ]
        return (
            f"{self.title:44s} {self.networks:4d} {len(ours):5d} {100 * np.median(ours):7.1f} %"
            f" {100 * np.mean(ours <= 0.25):6.0f} % {100 * self.covered.mean():7.0f} %"
            + "".join(others)
        )


def judge(
    title: str,
    held_out: Sequence[HeldOut],
    group: Callable[[Sample], Hashable] = lambda sample: sample.model,
) -> Judged:
    """Return how well held-out predictions and the baselines do."""
    ours = np.array([item.predicted_s / item.sample.seconds for item in held_out])
    samples = [item.sample for item in held_out]
    ratios = {"edgesdk": ours, "MACs": _by_setting(samples, group, _macs_times_constant)}
    if all(sample.board in _PEAKS for sample in samples):
        ratios["roofline"] = np.array([_roofline_s(s) / s.seconds for s in samples])
    ratios["linear"] = _by_setting(samples, group, _linear_regression)
    return Judged(
        title=title,
        networks=len({sample.model for sample in samples}),
        ratios=ratios,
        covered=_covered(held_out, group),
    )


def _covered(held_out: Sequence[HeldOut], group: Callable[[Sample], Hashable]) -> Floats:
    """Return for each measurement whether an interval from the other groups' errors holds it."""
    inside = []
    for item in held_out:
        own = group(item.sample)
        others = [other.distance for other in held_out if group(other.sample) != own]
        inside.append(item.distance <= math.log(interval_factor(others)))
    return np.array(inside, dtype=np.float64)


def _by_setting(
    samples: Sequence[Sample],
    group: Callable[[Sample], Hashable],
    predict: Callable[[Sequence[Sample], Sample], float],
) -> Floats:
    """Return predicted/measured, from the other groups of the same setting (or of all, if none)."""
    ratios = []
    for sample in samples:
        others = [other for other in samples if group(other) != group(sample)]
        near = [other for other in others if other.setting == sample.setting]
        ratios.append(predict(near if len(near) > 1 else others, sample) / sample.seconds)
    return np.array(ratios)


def _macs_times_constant(others: Sequence[Sample], sample: Sample) -> float:
    rates = [other.seconds / max(other.graph.macs, 1) for other in others]
    return float(np.median(rates)) * sample.graph.macs


def _linear_regression(others: Sequence[Sample], sample: Sample) -> float:
    rows = np.array([_totals(other) for other in others])
    seconds = np.array([other.seconds for other in others])
    weights, _ = nnls(rows / seconds[:, None], np.ones(len(others)))
    return float(np.array(_totals(sample)) @ weights)


def _totals(sample: Sample) -> list[float]:
    macs, moved = _work(sample)
    return [macs.sum() / 1e9, moved.sum() / 1e9, len(macs) / 1e3, 1e-3]


def _roofline_s(sample: Sample) -> float:
    operations, bandwidth = _PEAKS[sample.board]
    macs_s = operations / 2 * _SHARE_OF_INT8[sample.scheme]
    macs, moved = _work(sample)
    return float(np.maximum(macs / macs_s, moved / bandwidth).sum())


def _work(sample: Sample) -> tuple[Floats, Floats]:
    """Return MACs and bytes of each kernel, as a plain roofline sees them."""
    key = (sample.model, sample.scheme)  # a name has one graph
    if key not in _WORK:
        rows = [
            (kernel.op.macs, sum(traffic_bytes(kernel, sample.graph, sample.scheme)))
            for kernel in fuse(sample.graph)
        ]
        _WORK[key] = np.array(rows, dtype=np.float64).T
    macs, moved = _WORK[key]
    return macs, moved


def _pool(selection: Selection, pool: PoolKey) -> tuple[HeldOut, ...]:
    samples = selection.samples[pool]
    priors = {s.scheme: prior_cost(pool[1], s.scheme) for s in samples}
    return leave_out(samples, priors, suspect=_is_suspect)


def _print_nested(selection: Selection) -> None:
    """Print the Snapdragon rows with widths chosen without the networks that are judged."""
    samples = selection.samples[QUALCOMM]
    priors = {s.scheme: prior_cost("npu", s.scheme) for s in samples}
    models = sorted({sample.model for sample in samples})
    fold = {model: index % _FOLDS for index, model in enumerate(models)}
    found: list[HeldOut] = []
    for left in range(_FOLDS):
        inside = [sample for sample in samples if fold[sample.model] != left]
        scores = {
            name: _error(_by_fold(inside, priors, widths, fold), ("fp16", "int8"))
            for name, widths in CHOICES.items()
        }
        chosen = min(scores, key=lambda name: scores[name])
        print(f"fold {left}: {chosen}")
        found += [
            item
            for item in _by_fold(samples, priors, CHOICES[chosen], fold)
            if fold[item.sample.model] == left
        ]
    usual = _by_fold(samples, priors, USUAL, fold)
    for scheme in ("fp16", "int8"):
        nested, plain = (_error(items, (scheme,)) for items in (found, usual))
        print(f"{scheme}: median {100 * nested:.1f} % nested, {100 * plain:.1f} % with the usual")


def _by_fold(
    samples: Sequence[Sample],
    priors: Mapping[Scheme, PrecisionCost],
    widths: Widths,
    fold: Mapping[str, int],
) -> tuple[HeldOut, ...]:
    return leave_out(
        samples, priors, lambda item: fold[item.model], suspect=_is_suspect, widths=widths
    )


def _error(held_out: Sequence[HeldOut], schemes: Sequence[Scheme]) -> float:
    """Return the median error on the Snapdragons of the table."""
    errors = [
        item.error
        for item in held_out
        if item.sample.board in _SNAPDRAGONS and item.sample.scheme in schemes
    ]
    return float(np.median(errors))


def _is_suspect(sample: Sample) -> bool:
    """Return whether no fit uses a sample that the table nevertheless counts.

    Attention over 16,384 tokens leaves the on-chip memory; the model has no term for that.
    """
    return sample.model == "segformer_base"


def _boards_alike(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with each board's seconds as a core of 1 CoreMark at 1 Hz would take."""
    clocks = {name: load_device(name).clock_hz for name in {sample.board for sample in samples}}
    speeds = {
        name: clock.value * _CORE_SPEED[name] / (120e6 * 3.54)
        for name, clock in clocks.items()
        if clock is not None
    }
    return [replace(sample, seconds=sample.seconds * speeds[sample.board]) for sample in samples]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Judge predictions on published measurements.")
    parser.add_argument("--measurements", type=Path, default=MEASUREMENTS)
    parser.add_argument("--nested", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.measurements
    graphs, unread = read_graphs([folder / "graphs", REBUILT])
    profiles = [load_device(name) for name in profile_names()]
    selection = select(
        read_rows(folder / "published_latency.csv"),
        profiles,
        {**graphs, **reference_graphs()},
        [item for item in read_suspects(SUSPECTS) if item.precision != "w8a8"],
    )
    if arguments.nested:
        _print_nested(selection)
        return
    print(f"{'set':44s} nets  rows   median  <=25 %  in 90 %      MACs  roofline    linear")
    pooled = []
    for judged in _sets(selection):
        print(judged.line())
        pooled.append(judged.covered)
    print(f"\n90 % intervals hold {100 * np.concatenate(pooled).mean():.0f} % of what was left out")
    print("\nRows left out:")
    for reason, count in selection.left_out.items():
        print(f"  {count} {reason}")
    for name, reason in unread.items():
        print(f"  graph of {name} not read: {reason}")


def _sets(selection: Selection) -> list[Judged]:
    found: list[Judged] = []

    def add(title: str, held_out: Sequence[HeldOut], group: Callable[[Sample], Hashable]) -> None:
        found.append(judge(title, held_out, group))

    for pool, title, schemes, boards in (
        (QUALCOMM, "Snapdragon NPU, float", ("fp16",), _SNAPDRAGONS),
        (QUALCOMM, "Snapdragon NPU, w8a8", ("int8",), _SNAPDRAGONS),
        (NEURAL_ENGINE, "iPhones, float16", ("fp16",), ()),
        (TENSORRT, "Jetson Orin, TensorRT float16 and int8", ("fp16", "int8"), ()),
    ):
        held_out = [
            item
            for item in _pool(selection, pool)
            if item.sample.scheme in schemes and (not boards or item.sample.board in boards)
        ]
        add(title, held_out, _model)
    alike = _boards_alike(selection.samples[CMSIS_NN])
    priors = {"int8": prior_cost("cpu", "int8")}
    add("Cortex-M, int8, (board, model) left out", leave_out(alike, priors, _pair), _pair)
    add("Cortex-M, int8, board left out", leave_out(alike, priors, _board), _board)
    return found


def _model(sample: Sample) -> Hashable:
    return sample.model


def _pair(sample: Sample) -> Hashable:
    return sample.board, sample.model


def _board(sample: Sample) -> Hashable:
    return sample.board


if __name__ == "__main__":
    main()
