"""The generated schema: current, and true of every profile as it is written."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgesdk.device_files import load_device
from edgesdk.device_schema import profile_schema
from edgesdk.device_template import template_text

ROOT = Path(__file__).parents[1]
WRITTEN = ROOT / "docs/reference/device-profile.schema.json"
PROFILES = sorted((ROOT / "device_profiles").glob("*.toml"))
VALIDATOR = jsonschema.Draft202012Validator(profile_schema())


def faults(text: str) -> list[str]:
    data: dict[str, Any] = tomllib.loads(text)
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(data)]


def test_the_written_schema_is_current() -> None:
    jsonschema.Draft202012Validator.check_schema(profile_schema())
    assert json.loads(WRITTEN.read_text(encoding="utf-8")) == profile_schema(), (
        f"run: edgesdk devices schema > {WRITTEN.relative_to(ROOT)}"
    )


@pytest.mark.parametrize("path", PROFILES, ids=[path.stem for path in PROFILES])
def test_every_packaged_profile_follows_it(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_what_new_writes_follows_it() -> None:
    assert faults(template_text("mine", load_device("nucleo_l4r5zi"))) == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("clock_hz = { value = 1.2e8", "clock_hz = { value = 120", "clock_hz.value"),
        ("op_overhead_s = 9.06e-6", "op_overhead_s = 9.06", "op_overhead_s"),
        ("threads = 1", "threads = 0", "threads"),
        ("title =", "titel =", "titel"),
        ('kind = "microcontroller"', 'kind = "toaster"', "kind"),
        ('unit = "cpu"', 'unit = "fpga"', "unit"),
        ("ram_bytes = {", 'ram_bytes = { unit = "KiB",', "ram_bytes"),
    ],
)
def test_it_refuses_what_cannot_be(old: str, new: str, place: str) -> None:
    text = (ROOT / "device_profiles/nucleo_l4r5zi.toml").read_text(encoding="utf-8")
    assert old in text
    assert any(place in fault for fault in faults(text.replace(old, new, 1)))
