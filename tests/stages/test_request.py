from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs_task import blobs, points

from edgesdk.budget import Budget
from edgesdk.cache import Cache
from edgesdk.device import DeviceProfile
from edgesdk.device_files import load_device
from edgesdk.effort import Effort
from edgesdk.errors import TargetUnavailable, TaskError, UnsupportedModel, UsageError
from edgesdk.graph import OpGraph
from edgesdk.host_runtime import HostRuntime
from edgesdk.profiling.bench import Bench
from edgesdk.progress import Silent
from edgesdk.scheme import Scheme
from edgesdk.stages.request import Request, _check_unit, for_graph, resolve
from edgesdk.target import Capability, find_target
from edgesdk.task import Task
from edgesdk.trace import trace

Resolve = Callable[..., Request]


@pytest.fixture
def resolving(reference_device: DeviceProfile, tmp_path: Path) -> Resolve:
    def ask(task: Task | None = None, **changes: Any) -> Request:
        given: dict[str, Any] = {
            "device": reference_device,
            "target": None,
            "budget": Budget(),
            "effort": Effort(),
            "accelerator": "cpu",
            "cache": Cache(tmp_path),
            "progress": Silent(),
            "needs_toolchain": True,
        }
        return resolve(task or blobs(), **{**given, **changes})

    return ask


def test_a_request_is_resolved_from_names(resolving: Resolve) -> None:
    request = resolving()
    assert (request.device.name, request.target.name) == ("numpy_computer", "numpy")
    assert request.schemes == ("fp32", "fp16")
    assert "quantizer" in request.refused["int8"]
    assert request.host_runtime == HostRuntime(name="numpy")
    assert not request.can_measure
    assert "torch" in request.tool_versions
    assert [spec.name for spec in request.outputs] == ["class"]


def test_only_this_machine_can_be_clocked(
    resolving: Resolve, reference_device: DeviceProfile
) -> None:
    assert resolving(device=replace(reference_device, name="host")).can_measure


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hots", "host"),
        ("samsung_galaxy_s42", "samsung_galaxy_s24"),
        ("iphone15pro", "iphone_15_pro"),
    ],
)
def test_an_unknown_device_is_answered_with_the_near_one(
    resolving: Resolve, name: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=f"did you mean .*'{hint}'"):
        resolving(device=name)


def test_an_unknown_target_is_answered_with_the_near_one(resolving: Resolve) -> None:
    with pytest.raises(UsageError, match="did you mean 'tflite'"):
        resolving(target="tflit")


def test_a_target_the_device_does_not_have_names_those_it_has(resolving: Resolve) -> None:
    with pytest.raises(UsageError, match="no runtime for target 'coreml'") as caught:
        resolving(target="coreml")
    assert caught.value.expected == "--target numpy"


def test_a_delegate_names_the_targets_back_end(resolving: Resolve) -> None:
    assert resolving(device="samsung_galaxy_s24", target="executorch").runtime.unit == "cpu"
    asked = {"device": "samsung_galaxy_s24", "target": "executorch", "delegate": "vulkan"}
    assert resolving(**asked).runtime.unit == "gpu"
    alone = resolving(device="iphone_15_pro", target=None, delegate="coreml")
    assert (alone.target.name, alone.host_runtime) == ("executorch", None)


def test_a_delegate_the_device_does_not_have_names_those_it_has(resolving: Resolve) -> None:
    with pytest.raises(UsageError, match="Galaxy S24 has xnnpack, vulkan"):
        resolving(device="samsung_galaxy_s24", target="executorch", delegate="qnn")
    with pytest.raises(UsageError, match="did you mean 'vulkan'"):
        resolving(device="samsung_galaxy_s24", target="executorch", delegate="vulcan")


def test_an_unknown_accelerator_is_a_usage_error(resolving: Resolve) -> None:
    with pytest.raises(UsageError, match="cuda"):
        resolving(accelerator="cudaa")


def test_without_calibration_data_int8_is_refused_with_the_reason(
    resolving: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = type(find_target("numpy"))
    able = Capability(schemes=("fp32", "int8"), refused={})
    monkeypatch.setattr(target, "capability", lambda *_: able)
    assert resolving().schemes == ("fp32", "int8")
    request = resolving(replace(blobs(), calibration=None))
    assert request.schemes == ("fp32",)
    assert "calibration" in request.refused["int8"]


def test_a_target_without_float_has_no_baseline(
    resolving: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = type(find_target("numpy"))
    able = Capability(schemes=("int8",), refused={"fp32": "no float unit"})
    monkeypatch.setattr(target, "capability", lambda *_: able)
    with pytest.raises(TargetUnavailable, match="no float model"):
        resolving()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"calibration": lambda: iter([(torch.zeros(4, 9),)])}, "calibration sample 0"),
        ({"calibration": lambda: iter([(torch.full((4, 8), torch.nan),)])}, "NaN"),
        ({"calibration": lambda: iter(())}, "yielded nothing"),
        ({"calibration": lambda: 1 / 0}, "ZeroDivisionError"),
        ({"training": lambda: iter([points(1, 4)])}, "training batch 0 is a tuple"),
        ({"model": torch.nn.Linear(3, 4)}, "model on its example inputs"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_before_any_work(
    resolving: Resolve, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(TaskError, match=said) as caught:
        resolving(replace(blobs(), **change))
    assert caught.value.exit_code == 10


def test_keys_depend_on_the_task_and_on_every_part(resolving: Resolve) -> None:
    request = resolving()
    other = resolving(replace(blobs(), seed=1))
    keys = {
        request.key_for("emit", "a"),
        request.key_for("emit", "b"),
        request.key_for("emita"),
        other.key_for("emit", "a"),
    }
    assert len(keys) == 4
    assert resolving().key_for("emit", "a") == request.key_for("emit", "a")


def test_a_request_can_be_held_to_some_schemes(resolving: Resolve) -> None:
    request = resolving(only=("fp16",))
    assert request.schemes == ("fp16",)
    assert request.baseline_scheme == "fp32"
    assert request.refused["fp32"] == "it was not among the schemes asked for"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int9", "unknown scheme 'int9'"),
        ("int8", "int8 is not possible on numpy for numpy_computer: this target has no quantizer"),
    ],
)
def test_a_scheme_that_cannot_be_is_a_usage_error(
    resolving: Resolve, name: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        resolving(only=(name,))


def linears(inputs: int) -> OpGraph:
    net = torch.nn.Sequential(torch.nn.Linear(inputs, 8))
    return trace(net.eval(), (torch.zeros(1, inputs),), name="net")


def test_a_scheme_that_no_layer_can_have_is_not_looked_at(resolving: Resolve) -> None:
    able: tuple[Scheme, ...] = ("fp32", "int8_dynamic", "int4_dynamic")
    request = replace(resolving(), target=find_target("executorch"), schemes=able)
    assert for_graph(request, linears(64)).schemes == able
    left = for_graph(request, linears(24))
    assert left.schemes == ("fp32", "int8_dynamic")
    assert "24 inputs do not divide" in left.refused["int4_dynamic"]
    with pytest.raises(UnsupportedModel, match="no layer of the model can be int4_dynamic"):
        for_graph(replace(request, schemes=("int4_dynamic",)), linears(24))


def test_a_fleet_offers_what_every_device_computes(resolving: Resolve) -> None:
    request = resolving(
        device=["samsung_galaxy_s24", "google_pixel_8"], target="tflite", needs_toolchain=False
    )
    assert request.device.name == "samsung_galaxy_s24"
    assert list(request.runtimes) == ["", "google_pixel_8"]
    assert "fp16" not in request.schemes
    assert request.refused["fp16"].startswith("Google Pixel 8")
    assert request.baseline_scheme == "fp16"


def test_devices_that_share_no_precision_are_no_fleet(resolving: Resolve) -> None:
    task = replace(blobs(), calibration=None)
    with pytest.raises(TargetUnavailable, match="no precision is possible on tflite") as caught:
        resolving(
            task, device=["samsung_galaxy_s24", "google_pixel_8"], target="tflite",
            needs_toolchain=False,
        )  # fmt: skip
    assert "no calibration data" in str(caught.value.expected)


def test_a_fleet_of_none_is_a_usage_error(resolving: Resolve) -> None:
    with pytest.raises(UsageError, match="no device was named"):
        resolving(device=[])


def test_tensorrt_over_ssh_is_measured_on_its_gpu_and_over_adb_nothing_is() -> None:
    jetson = load_device("jetson_orin_nano")
    runtime = jetson.runtime_for("onnx")
    assert runtime.unit == "gpu"
    _check_unit(Bench(on="ssh:pi@board"), jetson, runtime)
    phone = load_device("samsung_galaxy_s24")
    npu = next(one for one in phone.runtime if one.unit == "npu")
    for device, its, on in ((jetson, runtime, "adb"), (phone, npu, "ssh:pi@board")):
        with pytest.raises(UsageError, match="runs on the CPU"):
            _check_unit(Bench(on=on), device, its)
