"""One file for two devices, the whole way: the slower one decides."""

from dataclasses import replace
from pathlib import Path

import pytest
from blobs_task import blobs

import edgesdk
from edgesdk.artifact import read_manifest
from edgesdk.budget import Budget
from edgesdk.device import DeviceProfile
from edgesdk.document import read_json
from edgesdk.errors import BudgetInfeasible, UsageError
from edgesdk.plan import Plan, Prune
from edgesdk.quantity import Quantity

pytestmark = pytest.mark.usefixtures("in_process")


def times(quantity: Quantity, factor: float) -> Quantity:
    return replace(quantity, value=factor * quantity.value)


def slower(device: DeviceProfile, factor: float) -> DeviceProfile:
    """Return a device that takes so many times as long for everything."""
    [runtime] = device.runtime
    precisions = {
        scheme: replace(
            cost,
            mac_per_s=times(cost.mac_per_s, 1 / factor),
            bytes_per_s=times(cost.bytes_per_s, 1 / factor),
            op_overhead_s=times(cost.op_overhead_s, factor),
            inference_overhead_s=times(cost.inference_overhead_s, factor),
        )
        for scheme, cost in runtime.precisions.items()
    }
    other = replace(runtime, precisions=precisions)
    return replace(device, name="slow_computer", runtime=(other,))


def latencies(plan: Plan) -> tuple[float, float]:
    """Return the upper ends of the predicted latency, here and on the slow computer."""
    there = plan.elsewhere["slow_computer"]["latency_ms"]
    return plan.predicted["latency_ms"].upper, there.upper


def share_removed(plan: Plan) -> float:
    return sum(step.ratio for step in plan.steps if isinstance(step, Prune))


@pytest.fixture
def fleet(reference_device: DeviceProfile) -> list[DeviceProfile]:
    return [reference_device, slower(reference_device, 10.0)]


def test_the_slower_device_decides(fleet: list[DeviceProfile], tmp_path: Path) -> None:
    alone = edgesdk.make_plan(blobs(), device=fleet[0], cache=tmp_path / "cache")
    unpruned = alone.baseline["latency_ms"].upper
    budget = Budget(latency_ms=8.5 * unpruned)
    easy = edgesdk.make_plan(blobs(), device=fleet[0], budget=budget, cache=tmp_path / "cache")
    both = edgesdk.compile(
        blobs(), device=fleet, budget=budget, out=tmp_path / "out", cache=tmp_path / "cache"
    )
    here, there = latencies(both.plan)
    assert here < there <= 8.5 * unpruned
    assert share_removed(both.plan) > share_removed(easy.plan)
    manifest = read_manifest(tmp_path / "out")
    assert list(manifest.elsewhere) == ["slow_computer"]
    judged = {v.condition.device: v for v in manifest.budget if v.condition.asked_by == "budget"}
    assert judged["slow_computer"].figure == both.plan.elsewhere["slow_computer"]["latency_ms"]
    assert all(verdict.met for verdict in manifest.budget)


def test_a_limit_that_only_one_device_keeps_is_refused(
    fleet: list[DeviceProfile], tmp_path: Path
) -> None:
    alone = edgesdk.make_plan(blobs(), device=fleet[0], cache=tmp_path / "cache")
    budget = Budget(latency_ms=alone.baseline["latency_ms"].upper)
    with pytest.raises(BudgetInfeasible, match="latency_ms on slow_computer") as caught:
        edgesdk.make_plan(blobs(), device=fleet, budget=budget, cache=tmp_path / "cache")
    rows = {row.device: row.reachable for row in caught.value.result.feasibility}
    assert rows == {"": True, "slow_computer": False}


def test_a_fleets_plan_is_replayed_for_that_fleet_alone(
    fleet: list[DeviceProfile], tmp_path: Path
) -> None:
    made = edgesdk.make_plan(blobs(), device=fleet, cache=tmp_path / "cache").plan
    with pytest.raises(UsageError, match="made for another fleet"):
        edgesdk.compile(
            blobs(), device=fleet[0], plan=made, out=tmp_path / "out", cache=tmp_path / "cache"
        )
    again = edgesdk.compile(
        blobs(), device=fleet, plan=made, out=tmp_path / "out", cache=tmp_path / "cache"
    )
    assert again.plan == read_json(Plan, tmp_path / "out" / "plan.json") == made
