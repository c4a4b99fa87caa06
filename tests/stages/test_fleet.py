"""Fleets: devices that one file must fit, and what is asked of each."""

from dataclasses import replace

import pytest

from edgesdk.budget import Budget, Relative
from edgesdk.device import DeviceProfile
from edgesdk.device_files import load_device
from edgesdk.errors import UsageError
from edgesdk.figure import Figure
from edgesdk.stages.fleet import Member, common_target, fleet_conditions, joint_runtime, members_of

S24 = load_device("samsung_galaxy_s24")
S23 = load_device("samsung_galaxy_s23")
PIXEL = load_device("google_pixel_8")
IPHONE = load_device("iphone_12")
NUCLEO = load_device("nucleo_h7a3zi_q")
NORDIC = load_device("nrf5340_dk")


@pytest.mark.parametrize(
    ("devices", "asked", "target"),
    [
        ([S24, PIXEL], None, "tflite"),
        ([S24, PIXEL], "executorch", "executorch"),
        ([S24], None, None),
        ([load_device("jetson_orin_nano"), S24], None, "executorch"),
    ],
)
def test_the_target_is_one_that_all_have(
    devices: list[DeviceProfile], asked: str | None, target: str | None
) -> None:
    assert common_target(devices, asked) == target


def test_devices_without_a_common_target_are_told_apart() -> None:
    with pytest.raises(
        UsageError, match="iphone_12: coreml, executorch; samsung_galaxy_s24: tflite"
    ) as caught:
        common_target([IPHONE, S24], None)
    assert caught.value.next_step == "compile for each group of devices apart"


def test_a_fleet_shares_the_delegate_that_its_file_is_compiled_for() -> None:
    vulkan = S24.runtime_for("executorch", "vulkan")
    [member] = members_of(vulkan, [S23])
    assert member.runtime.delegate == "vulkan"
    with pytest.raises(UsageError, match="needs another file: it has no executorch for vulkan"):
        members_of(vulkan, [IPHONE])


def test_a_device_is_named_once() -> None:
    with pytest.raises(UsageError, match="samsung_galaxy_s23 was given twice"):
        common_target([S23, S24, S23], "tflite")


def test_a_microcontroller_does_not_read_a_phones_file() -> None:
    with pytest.raises(UsageError, match="its runtime is tflite-micro, not litert"):
        members_of(S24.runtime_for("tflite"), [NUCLEO])


def test_integers_at_the_boundary_decide_the_file() -> None:
    floats = replace(NORDIC.runtime[0], integer_io=False)
    other = replace(NORDIC, runtime=(floats,))
    with pytest.raises(UsageError, match="its integer_io is False, not True"):
        members_of(NUCLEO.runtime_for("tflite"), [other])


def test_the_file_is_for_the_oldest_runtime_and_the_widest_multiple() -> None:
    old = replace(IPHONE.runtime[0], minimum_version="iOS9", channel_multiple=64)
    older = Member(device=IPHONE, runtime=old)
    first = replace(IPHONE.runtime[0], minimum_version="iOS17", channel_multiple=32)
    joint = joint_runtime(first, [older])
    assert (joint.minimum_version, joint.channel_multiple) == ("iOS9", 64)
    assert joint_runtime(first, []) == first


def test_each_device_has_its_own_limits() -> None:
    """A share is of what the original takes there; what belongs to the file is asked once."""
    budget = Budget(latency_ms=Relative(fraction=0.5), size_bytes=1000.0, max_drop=0.01)
    here = {"latency_ms": Figure(value=8.0, standing="measured")}
    there = {"latency_ms": Figure(value=30.0, standing="predicted", low=20.0, high=40.0)}
    first = Member(device=NUCLEO, runtime=NUCLEO.runtime[0])
    other = Member(device=NORDIC, runtime=NORDIC.runtime[0])
    found = fleet_conditions(budget, here, first, [other], {"nrf5340_dk": there})  # type: ignore[arg-type]
    limits = {(c.device, c.figure): c.limit for c in found if c.asked_by == "budget"}
    assert limits == {
        ("", "latency_ms"): 4.0,
        ("", "size_bytes"): 1000.0,
        ("", "accuracy_drop"): 0.01,
        ("nrf5340_dk", "latency_ms"): 15.0,
    }
    own = {(c.device, c.figure) for c in found if c.asked_by == "device"}
    assert own == {(d, f) for d in ("", "nrf5340_dk") for f in ("memory_bytes", "flash_bytes")}
