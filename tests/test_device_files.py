import csv
import dataclasses
import re
from pathlib import Path
from typing import get_type_hints

import pytest

from edgesdk import device_files
from edgesdk.cost.kernel_class import _CLASS_OF_KIND
from edgesdk.device import DeviceProfile, Memory, Runtime
from edgesdk.device_document import read_profile
from edgesdk.device_files import load_device, profile_names
from edgesdk.errors import ProfileError, UsageError
from edgesdk.precision_cost import KernelCost, PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.quantity_range import RANGES

PROFILE = """\
schema_version = 1
name = "bench"
title = "A bench"
kind = "microcontroller"
processor = "Cortex-M4"
ram_bytes = { value = 131072, source = "data sheet", kind = "datasheet" }
flash_bytes = { value = 1048576, source = "data sheet", kind = "datasheet" }
clock_hz = { value = 80e6, source = "data sheet", kind = "datasheet" }

[[runtime]]
target = "tflite"
delegate = "cmsis_nn"
runtime = "tflite-micro"
minimum_version = "1"
unit = "cpu"
threads = 1
channel_multiple = 4
weights_in_ram = false
integer_io = true
runtime_ram_bytes = { value = 8192, source = "linker map", kind = "measured" }

[runtime.precisions.fp32]
mac_per_s = { value = 1e7, source = "clock", kind = "estimated" }
bytes_per_s = { value = 8e7, source = "clock", kind = "estimated" }
op_overhead_s = { value = 1e-5, source = "clock", kind = "estimated" }
inference_overhead_s = { value = 1e-5, source = "clock", kind = "estimated" }
error_factor = { value = 3, source = "a guess", kind = "estimated" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of profiles, empty."""
    folder = tmp_path / "device_profiles"
    folder.mkdir()
    monkeypatch.setattr(device_files, "user_config_path", lambda _name: tmp_path)
    return folder


def write(folder: Path, text: str = PROFILE, name: str = "bench") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(old: str, new: str) -> str:
    assert old in PROFILE
    return PROFILE.replace(old, new, 1)


def quantities(value: object) -> list[Quantity]:
    if isinstance(value, Quantity):
        return [value]
    if dataclasses.is_dataclass(value):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, dict):
        parts = list(value.values())
    else:
        parts = list(value) if isinstance(value, tuple) else []
    return [found for part in parts for found in quantities(part)]


PACKAGED = sorted(
    path.stem for path in (Path(__file__).parents[1] / "device_profiles").glob("*.toml")
)
EMITTED = ("coreml", "executorch", "onnx", "tflite")


@pytest.mark.usefixtures("folder")
def test_packaged_profiles_are_found() -> None:
    assert list(profile_names()) == PACKAGED
    assert len(PACKAGED) >= 24
    kinds = {load_device(name).kind for name in PACKAGED}
    assert kinds == {"phone", "embedded", "microcontroller", "computer"}


@pytest.mark.parametrize("name", PACKAGED)
@pytest.mark.usefixtures("folder")
def test_packaged_profiles_state_every_number_s_source(name: str) -> None:
    profile = load_device(name)
    found = quantities(profile)
    assert len(found) > 5
    for quantity in found:
        assert len(quantity.source.split()) >= 2, quantity
    assert profile.runtime[0].target in EMITTED, "the default is something that can be compiled"
    for runtime in profile.runtime:
        assert runtime.float_scheme in ("fp32", "fp16")
        assert runtime.target in EMITTED or "predicted only" in " ".join(profile.notes)
        for cost in runtime.precisions.values():
            unmeasured = cost.mac_per_s.kind == "estimated"
            assert cost.error_factor.value >= (1.3 if unmeasured else 1.1)


@pytest.mark.usefixtures("folder")
def test_no_executorch_coefficient_claims_to_be_measured() -> None:
    for name in PACKAGED:
        for runtime in load_device(name).runtime:
            if runtime.target == "executorch":
                kinds = {cost.mac_per_s.kind for cost in runtime.precisions.values()}
                assert kinds == {"estimated"}


@pytest.mark.usefixtures("folder")
def test_what_nobody_has_measured_says_so_of_every_coefficient() -> None:
    for name in ("raspberry_pi_5", "google_pixel_8", "corstone_300"):
        for runtime in load_device(name).runtime:
            assert runtime.evidence == ()
            for cost in runtime.precisions.values():
                assert {quantity.kind for quantity in quantities(cost)} == {"estimated"}
                assert cost.error_factor.value >= 3


@pytest.mark.usefixtures("folder")
def test_int8_is_faster_only_where_the_unit_multiplies_it_faster() -> None:
    phone = load_device("samsung_galaxy_s24").runtime[0]
    assert phone.int8_speedup is not None
    assert phone.int8_speedup > 1
    only_float = {key: cost for key, cost in phone.precisions.items() if key != "int8"}
    assert dataclasses.replace(phone, precisions=only_float).int8_speedup is None


@pytest.mark.parametrize("name", [n for n in PACKAGED if load_device(n).kind == "microcontroller"])
@pytest.mark.usefixtures("folder")
def test_microcontroller_leaves_room_for_its_runtime(name: str) -> None:
    profile = load_device(name)
    assert profile.flash_bytes is not None
    limits = profile.hard_limits(profile.runtime_for("tflite"))
    assert 0 < limits["memory_bytes"] < profile.ram_bytes.value
    assert 0 < limits["flash_bytes"] < profile.flash_bytes.value


def test_every_quantity_has_a_range() -> None:
    for kind in (DeviceProfile, Memory, Runtime, PrecisionCost, KernelCost):
        hints = get_type_hints(kind)
        names = {name for name, hint in hints.items() if "Quantity" in str(hint)}
        assert names
        assert names <= set(RANGES)


def test_reads_a_profile(tmp_path: Path) -> None:
    profile = read_profile(write(tmp_path))
    assert profile.name == "bench"
    assert profile.runtime[0].precisions["fp32"].mac_per_s.value == 1e7
    assert load_device(str(tmp_path / "bench.toml")) == profile


def test_user_s_profiles_are_found_by_name(folder: Path) -> None:
    write(folder)
    assert "bench" in profile_names()
    assert load_device("bench").title == "A bench"


def test_two_profiles_of_one_name(folder: Path) -> None:
    write(folder, PROFILE.replace('"bench"', '"host"'), name="host")
    with pytest.raises(ProfileError, match=r"two device profiles are named 'host'.*rename one"):
        load_device("host")


@pytest.mark.usefixtures("folder")
def test_unknown_device_lists_near_names() -> None:
    with pytest.raises(UsageError, match=r"unknown device 'samsung_galaxy_s42'.*galaxy_s24'"):
        load_device("samsung_galaxy_s42")


@pytest.mark.parametrize("name", ["../host", "..", "/etc/passwd", "host/../host", "", "HOST\0"])
@pytest.mark.usefixtures("folder")
def test_a_name_never_becomes_a_path(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        load_device(name)


def test_missing_path() -> None:
    with pytest.raises(UsageError, match=r"no device profile at nowhere/x\.toml"):
        load_device("nowhere/x.toml")


BAD = {
    "clock in MHz": (changed("80e6", "80"), r"clock_hz = 80 cannot be.*give Hz, not MHz"),
    "negative": (changed("131072", "-1"), r"ram_bytes = -1 cannot be"),
    "zero rate": (changed("mac_per_s = { value = 1e7", "mac_per_s = { value = 0"), "mac_per_s = 0"),
    "not finite": (changed("8e7", "inf"), r"bytes_per_s = inf cannot be"),
    "milliseconds": (changed("op_overhead_s = { value = 1e-5", "op_overhead_s = { value = 10.0"),
                     "op_overhead_s = 10 cannot be.*give seconds"),
    "factor below one": (changed("value = 3,", "value = 0.5,"), "error_factor = 0.5 cannot be"),
    "kilobytes": (changed("131072", "128"), "ram_bytes = 128 cannot be.*give bytes"),
    "no threads": (changed("threads = 1", "threads = 0"), "threads = 0 cannot be"),
    "endless": (changed("80e6", "9" * 5000), "is not a TOML file"),
    "beyond floats": (changed("80e6", "9" * 400), "an integer of 400 digits cannot be"),
    "not a number": (changed("80e6", "nan"), "clock_hz = nan cannot be"),
    "a date": (changed("80e6", "2026-11-21"), r"clock_hz\.value"),
    "no source": (changed('131072, source = "data sheet"', "131072"), r"ram_bytes\.source"),
    "empty source": (changed('"linker map"', '" "'), "runtime_ram_bytes has an empty source"),
    "bare number": (changed('{ value = 80e6, source = "data sheet", kind = "datasheet" }', "80e6"),
                    "clock_hz is the bare number 8e\+07.*where it comes from"),
    "text for a number": (changed("value = 80e6", 'value = "80e6"'), r"clock_hz\.value: .*number"),
    "truth for a number": (changed("value = 80e6", "value = true"), r"clock_hz\.value: .*number"),
    "unknown key": (changed("clock_hz", "clok_hz"), r"clok_hz: unknown key .*mean clock_hz"),
    "unknown key inside": (changed("threads = 1", "threads = 1\nthread = 2"),
                           r"runtime\.0\.thread: unknown key"),
    "unknown kind": (changed('"measured"', '"guessed"'), "runtime_ram_bytes.kind"),
    "unknown precision": (changed("precisions.fp32", "precisions.fp8"), "fp8"),
    "missing key": (changed('title = "A bench"\n', ""), "title: Field required"),
    "no runtime": (PROFILE.partition("[[")[0] + "runtime = []", "no .*runtime.* table"),
    "newer": (changed("schema_version = 1", "schema_version = 2"), "newer than this edgesdk"),
    "other name": (changed('name = "bench"', 'name = "desk"'), "says name = 'desk'.*'bench'"),
    "not TOML": ("name: bench", "is not a TOML file"),
    "bottomless": ("x = " + "[" * 5000, "is not a TOML file"),
    "too little for a phone": (changed('"microcontroller"', '"phone"'), "too little for a phone"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_profiles(tmp_path: Path, case: str) -> None:
    text, message = BAD[case]
    with pytest.raises(ProfileError) as caught:
        read_profile(write(tmp_path, text))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "bench.toml" in str(caught.value) or case == "no runtime"


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(tmp_path / "nothing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="is not a TOML file"):
        read_profile(tmp_path / "binary.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(ProfileError, match="larger than 1000000 bytes"):
        read_profile(tmp_path / "huge.toml")


def test_a_wheel_s_profiles_lie_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "edgesdk"
    (package / "device_profiles").mkdir(parents=True)
    monkeypatch.setattr(device_files, "__file__", str(package / "device_files.py"))
    assert device_files.profile_folders()[0] == package / "device_profiles"


def test_an_incomplete_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_files, "__file__", str(tmp_path / "a" / "device_files.py"))
    with pytest.raises(ProfileError, match=r"no device profiles.*install edgesdk again"):
        profile_names()


@pytest.mark.usefixtures("folder")
def test_operators_left_to_the_cpu_are_kinds_that_a_graph_has() -> None:
    for name in PACKAGED:
        for runtime in load_device(name).runtime:
            assert set(runtime.cpu_operators) <= set(_CLASS_OF_KIND), name
            assert list(runtime.cpu_operators) == sorted(set(runtime.cpu_operators)), name


MEASUREMENTS = Path(__file__).parents[2] / "shared/measurements/published_latency.csv"


@pytest.mark.skipif(not MEASUREMENTS.is_file(), reason="needs ../shared/measurements")
@pytest.mark.usefixtures("folder")
def test_evidence_is_spelled_as_the_measurements_spell_it() -> None:
    with MEASUREMENTS.open(encoding="utf-8", newline="") as file:
        rows = {(r["device"], r["runtime"], r["precision"]) for r in csv.DictReader(file)}
    for name in PACKAGED:
        for runtime in load_device(name).runtime:
            for evidence in runtime.evidence:
                assert evidence.scheme in runtime.precisions, name
                assert (evidence.device, evidence.runtime, evidence.precision) in rows, name
