"""A device and sensitivities written by hand: one group of eight channels that may keep four."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgesdk.device import DeviceProfile, Runtime
from edgesdk.graph import OpGraph
from edgesdk.planner.options import Option, option_for
from edgesdk.planner.sensitivity import FormatPoint, GroupCurve, JointPoint, Sensitivity
from edgesdk.planner.widths import WidthModel, Widths
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.scheme import Scheme

FULL: Widths = (8,)
HALF: Widths = (4,)
SCHEMES: tuple[Scheme, ...] = ("fp32", "int8")
OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (option_for(w, FULL, scheme) for w in (FULL, HALF) for scheme in SCHEMES)
}


def quantity(value: float) -> Quantity:
    return Quantity(value=value, source="a test", kind="estimated")


def precision(rate: float = 1e9, error_factor: float = 2.0) -> PrecisionCost:
    return PrecisionCost(
        mac_per_s=quantity(rate),
        bytes_per_s=quantity(rate),
        op_overhead_s=quantity(1e-6),
        inference_overhead_s=quantity(1e-5),
        error_factor=quantity(error_factor),
    )


RUNTIME = Runtime(
    target="tflite",
    delegate="",
    runtime="litert",
    minimum_version="1",
    unit="cpu",
    threads=1,
    channel_multiple=1,
    weights_in_ram=False,
    integer_io=False,
    precisions={"fp32": precision(), "int8": precision()},
    runtime_ram_bytes=quantity(24_000),
    runtime_flash_bytes=quantity(50_000),
)
COMPUTER = DeviceProfile(
    schema_version=1,
    name="board",
    title="A board",
    kind="computer",
    processor="p",
    ram_bytes=quantity(2**30),
    runtime=(RUNTIME,),
)
MICRO = replace(
    COMPUTER,
    kind="microcontroller",
    ram_bytes=quantity(64_000),
    flash_bytes=quantity(150_000),
)


def formats(
    losses: Mapping[Scheme, float],
    *,
    drops: Mapping[Scheme, float | None] | None = None,
    disagreement: float | None = 0.0,
) -> tuple[FormatPoint, ...]:
    """Return the unpruned network's points; where no drops are given they are 0."""
    return tuple(
        FormatPoint(
            scheme=scheme,
            loss=loss,
            disagreement=disagreement,
            drop=0.0 if drops is None else drops[scheme],
        )
        for scheme, loss in losses.items()
    )


def joint(sum_: float, loss: float, drop: float | None, *, moved: float | None = 0.0) -> JointPoint:
    """Return a network whose widths do not matter: only its summed loss does."""
    return JointPoint(widths=HALF, sum=sum_, loss=loss, disagreement=moved, drop=drop)


def sensitivity(
    *,
    pruned_loss: float = 1.0,
    points: Sequence[FormatPoint] | None = None,
    joint_points: Sequence[JointPoint] = (),
    metric: float | None = 0.9,
    samples: int = 100,
    metric_samples: int = 100,
    noise: float = 0.0,
) -> Sensitivity:
    """Return what is known of a network whose one group may keep four of its eight channels."""
    graph = OpGraph(model="m", ops=(), tensors={})
    curve = GroupCurve(
        layer="conv",
        order=tuple((channel,) for channel in range(8)),
        choices=(4, 8),
        losses=(pruned_loss, 0.0),
    )
    return Sensitivity(
        channel_multiple=1,
        importance="taylor",
        inputs="calibration",
        samples=samples,
        metric=metric,
        metric_samples=metric_samples,
        noise=noise,
        drop_range=(-1.0, 1.0),
        widths=WidthModel(graph=graph, groups=("conv",), full=FULL, extents=()),
        curves=(curve,),
        formats=tuple(points or formats(dict.fromkeys(SCHEMES, 0.0))),
        mixes={},
        layers=(),
        joint=tuple(joint_points),
        notes=(),
    )
