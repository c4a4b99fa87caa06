"""Parity: does the artifact on its runtime compute what the PyTorch model computes?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from edgesdk.artifact import Check, Parity
from edgesdk.errors import ParityError
from edgesdk.host_runtime import HostRuntime
from edgesdk.scheme import Scheme
from edgesdk.task import OutputSpec, Tensors
from edgesdk.top_class import moved_samples

# Least signal-to-noise ratio a correct file reaches; docs/concepts/parity.md justifies each. A
# wrong graph, a transposed input or a constant output stays below 3 dB, so all three are told
# apart from rounding, by int8 with a wide margin; whether that is good enough is the metric's
# question.
MINIMUM_SQNR_DB: Mapping[Scheme, float] = {
    "fp32": 60.0, "fp16": 30.0, "int8": 10.0, "w8a16": 15.0, "int8_dynamic": 10.0, "w8": 10.0,
    "int4_dynamic": 3.0, "w4": 3.0, "lut8": 10.0, "lut6": 10.0, "lut4": 3.0,
    "w8_sparse50": 3.0, "lut4_sparse50": 3.0,
}  # fmt: skip

# Where rounding alone may leave so little, the file is also held to the quantized network in
# PyTorch: both round alike, and differ where a value lies on the edge between two steps.
FOLLOWED_SQNR_DB = 15.0


def compare(
    reference: Tensors, actual: Tensors, outputs: Sequence[OutputSpec], checks: tuple[Check, ...],
    *, runtime: HostRuntime,
) -> Parity:  # fmt: skip
    """Return how closely ``actual`` follows ``reference``, both ``[N, ...]`` per output.

    ``runtime`` is what computed ``actual``; its standing is the status.
    """
    shapes = _same_shapes(reference, actual)
    if not shapes.passed:
        return Parity(
            status=runtime.standing,
            runtime=runtime.name,
            samples=int(reference[0].shape[0]),
            sqnr_db=None,
            maximum_error=None,
            top1_agreement=None,
            checks=(*checks, shapes),
        )
    worst = max(
        float((wanted.double() - got.double()).abs().max())
        for wanted, got in zip(reference, actual, strict=True)
    )
    constant = _constant_output(reference, actual)
    return Parity(
        status=runtime.standing,
        runtime=runtime.name,
        samples=int(reference[0].shape[0]),
        sqnr_db=sqnr_db(reference, actual),
        maximum_error=worst if math.isfinite(worst) else None,
        top1_agreement=_top1_agreement(reference, actual, outputs),
        checks=(*checks, shapes, constant),
    )


def sqnr_db(reference: Tensors, actual: Tensors) -> float | None:
    """Return 10 log10(signal / noise) over all outputs together, None where it is not finite.

    The signal is what varies: ``sum (y - mean over samples)^2``, so that a large offset that every
    sample shares cannot hide wrong answers. One sample, or outputs that do not vary, count whole.
    Capped at 200 dB, which equal tensors reach. Outputs of other shapes have no ratio: None.
    """
    if not _same_shapes(reference, actual).passed:
        return None
    varying = whole = noise = 0.0
    for wanted, got in zip(reference, actual, strict=True):
        exact = wanted.double()
        varying += float((exact - exact.mean(0, keepdim=True)).square().sum())
        whole += float(exact.square().sum())
        noise += float((exact - got.double()).square().sum())
    if not math.isfinite(noise):
        return None
    signal = varying if varying > 1e-12 * whole else whole
    if noise <= signal * 1e-20:
        return 200.0
    return 10 * math.log10(max(signal, 1e-30) / noise)


def follows(quantized: Tensors, actual: Tensors) -> Check:
    """Return whether outputs follow the quantized network's in PyTorch, closer than the float's."""
    found = sqnr_db(quantized, actual)
    ratio = "not finite" if found is None else f"{found:.1f} dB"
    return Check(
        name="follows the quantized network",
        passed=found is not None and found >= FOLLOWED_SQNR_DB,
        detail=f"signal to noise {ratio} against PyTorch's rounding, "
        f"at least {FOLLOWED_SQNR_DB:.0f} dB is right",
    )


def _same_shapes(reference: Tensors, actual: Tensors) -> Check:
    """Return whether number and shapes of the outputs are the model's; nothing may broadcast."""
    wanted = [list(tensor.shape) for tensor in reference]
    got = [list(tensor.shape) for tensor in actual]
    detail = f"{got}" if wanted == got else f"{got}, the model gives {wanted}"
    return Check(name="output shapes", passed=wanted == got, detail=detail)


def _constant_output(reference: Tensors, actual: Tensors) -> Check:
    """Return whether outputs vary over the samples wherever the model's do."""
    frozen = [
        index
        for index, (wanted, got) in enumerate(zip(reference, actual, strict=True))
        if len(wanted) > 1 and bool((wanted != wanted[:1]).any()) and not (got != got[:1]).any()
    ]
    detail = f"output {frozen} is the same for every sample" if frozen else "outputs vary"
    return Check(name="output follows the input", passed=not frozen, detail=detail)


def _top1_agreement(
    reference: Tensors, actual: Tensors, outputs: Sequence[OutputSpec]
) -> float | None:
    moved = moved_samples(reference, actual, outputs)
    return None if moved is None else 1.0 - float(moved.to(torch.float32).mean())


class NoiseError(ParityError):
    """The file computes, but further from its float module than its precision should explain."""


def gate(parity: Parity, scheme: Scheme) -> None:
    """Raise ``ParityError`` unless every check passed and the noise is what the scheme explains."""
    failed = [check for check in parity.checks if not check.passed]
    if failed:
        raise ParityError(
            "; ".join(f"{check.name}: {check.detail}" for check in failed),
            next_step="the file was not kept; report the model if it is a common architecture",
        )
    if parity.status == "not verified":
        return
    minimum = MINIMUM_SQNR_DB[scheme]
    if parity.sqnr_db is None or parity.sqnr_db < minimum:
        found = "not finite" if parity.sqnr_db is None else f"{parity.sqnr_db:.1f} dB"
        raise NoiseError(
            f"the {scheme} file on {parity.runtime} does not follow the model it was made of: "
            f"signal to noise over {parity.samples} samples is {found}",
            expected=f"at least {minimum:.0f} dB",
            next_step="compile with a wider precision, or check that calibration data is real",
        )
