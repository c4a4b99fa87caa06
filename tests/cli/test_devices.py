"""``edgesdk devices``: list, show, check, new and schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from answers import Asking, answered

from edgesdk import device_files
from edgesdk.device_document import read_profile
from edgesdk.device_files import load_device, profile_names
from edgesdk.device_text import profile_text
from edgesdk.target import target_names


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of profiles, empty; the current folder is beside it."""
    folder = tmp_path / "config" / "device_profiles"
    folder.mkdir(parents=True)
    monkeypatch.setattr(device_files, "user_config_path", lambda _name: tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return folder


def calibrated(folder: Path, name: str = "raspberry_pi_5") -> Path:
    text = profile_text(load_device(name))
    path = folder / f"{name}.toml"
    path.write_text(
        text.replace("\nkind =", f'\ncalibrated_from = "{name}"\nkind =', 1), encoding="utf-8"
    )
    return path


def test_devices_are_listed_with_what_runs_on_them(asking: Asking) -> None:
    code, data = answered(asking("devices", "list", "--json"))
    assert code == 0
    assert [row["name"] for row in data["devices"]] == list(profile_names())
    for row in data["devices"]:
        first, *_ = row["runtimes"]
        assert first["is_emitted"], "the default is something that can be compiled"
        assert set(first["latency_kinds"]) == set(first["precisions"])
        for runtime in row["runtimes"]:
            assert runtime["is_emitted"] == (runtime["target"] in target_names())
    code, text = asking("devices", "list")
    assert code == 0
    for name in profile_names():
        assert name in text


def test_one_kind_of_device_is_listed(asking: Asking) -> None:
    _, data = answered(asking("devices", "list", "--kind", "microcontroller", "--json"))
    assert {row["kind"] for row in data["devices"]} == {"microcontroller"}
    assert "nucleo_l4r5zi" in {row["name"] for row in data["devices"]}
    code, data = answered(asking("devices", "list", "--kind", "phon", "--json"))
    assert (code, data["error"]) == (2, "UsageError")
    assert "'phone'" in data["message"]


def test_a_calibrated_profile_is_said_to_be_one(asking: Asking, folder: Path) -> None:
    calibrated(folder)
    _, data = answered(asking("devices", "list", "--json"))
    row = next(row for row in data["devices"] if row["name"] == "raspberry_pi_5")
    assert row["calibrated_from"] == "raspberry_pi_5"
    assert "Raspberry Pi 5 8GB (calibrated)" in asking("devices", "list")[1]
    assert "from raspberry_pi_5" in asking("devices", "show", "raspberry_pi_5")[1]
    assert answered(asking("devices", "check", "--json"))[0] == 0


@pytest.mark.parametrize("name", profile_names())
def test_a_device_is_shown_with_the_source_of_every_number(name: str, asking: Asking) -> None:
    code, data = answered(asking("devices", "show", name, "--json"))
    assert (code, data["device"]["name"]) == (0, name)
    assert data["device"]["ram_bytes"]["source"]
    code, text = asking("devices", "show", name)
    assert code == 0
    profile = load_device(name)
    for word in (name, "ram_bytes", "mac_per_s", profile.ram_bytes.kind):
        assert word in text
    for runtime in profile.runtime:
        assert runtime.target in text
        for scheme in runtime.precisions:
            assert f"{scheme} error_factor" in text
        for evidence in runtime.evidence:
            assert evidence.device in text.replace("\n", " ")


def test_numbers_are_shown_in_units(asking: Asking) -> None:
    _, text = asking("devices", "show", "samsung_galaxy_s24")
    for shown in ("3.39 GHz", "8 GiB", "76.8 GB/s", "TMAC/s", " us "):
        assert shown in text


def test_all_profiles_are_good(asking: Asking) -> None:
    code, data = answered(asking("devices", "check", "--json"))
    assert (code, data["status"]) == (0, "ok")
    assert {row["name"] for row in data["profiles"]} == set(profile_names())
    assert "no problem" in asking("devices", "check", "host")[1]


def test_every_problem_of_every_profile_is_printed(asking: Asking, folder: Path) -> None:
    text = profile_text(load_device("nucleo_l4r5zi"))
    text = text.replace("clock_hz = { value = 1.2e8", "clock_hz = { value = 120")
    text = text.replace("threads = 1", "threads = 0").replace("title =", "titel =")
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    (folder / "host.toml").write_text("x = [", encoding="utf-8")

    code, data = answered(asking("devices", "check", "--json"))

    assert (code, data["status"], data["error"], data["exit_code"]) == (
        7,
        "error",
        "ProfileError",
        7,
    )
    bad = {row["file"]: " ".join(row["problems"]) for row in data["profiles"] if row["problems"]}
    assert set(bad) == {str(folder / "mine.toml"), str(folder / "host.toml")}
    for word in ("clock_hz = 120 cannot be", "threads = 0", "did you mean title", "title: Field"):
        assert word in bad[str(folder / "mine.toml")]
    assert "two device profiles are named 'host'" in bad[str(folder / "host.toml")]

    code, text = asking("devices", "check", str(folder / "mine.toml"), "host")
    assert code == 7
    assert "clock_hz" in text
    assert "problem(s) in 1 of 2" in text


def test_checking_what_is_not_there(asking: Asking) -> None:
    code, data = answered(asking("devices", "check", "hots", "--json"))
    assert (code, data["error"]) == (2, "UsageError")
    assert "'host'" in data["message"]
    code, data = answered(asking("devices", "check", "nothing.toml", "--json"))
    assert code == 7
    assert "cannot be read" in data["profiles"][0]["problems"][0]


def test_a_new_profile_is_valid_and_claims_nothing(asking: Asking, folder: Path) -> None:
    code, data = answered(asking("devices", "new", "my_board", "--like", "ek_ra8d1", "--json"))
    assert (code, data["file"]) == (0, "my_board.toml")
    text = Path("my_board.toml").read_text(encoding="utf-8")
    assert text.count("FILL IN") > 10
    assert asking("devices", "check", "my_board.toml")[0] == 0
    assert asking("devices", "show", "my_board.toml")[0] == 0
    assert read_profile(Path("my_board.toml")).kind == "microcontroller"
    code, text = asking("devices", "new", "other", "-o", str(folder / "other.toml"))
    assert code == 0
    assert "devices check" in text
    assert "other" in profile_names()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("new", "host"), 2, "named 'host' already"),
        (("new", "My Board"), 2, "no name for a device"),
        (("new", "../evil"), 2, "no name for a device"),
        (("new", "mine", "--like", "hots"), 2, "did you mean 'host'"),
        (("new", "mine", "-o", "yours.toml"), 2, "a file named mine.toml"),
        (("new", "mine", "-o", "nowhere/mine.toml"), 11, "cannot be written"),
        (("new", "taken"), 11, "exists already"),
    ],
)
def test_new_refuses(
    arguments: tuple[str, ...], code: int, said: str, asking: Asking, tmp_path: Path
) -> None:
    (tmp_path / "taken.toml").write_text("mine", encoding="utf-8")
    found, data = answered(asking("devices", *arguments, "--json"))
    assert found == code
    assert said in data["message"]
    assert (tmp_path / "taken.toml").read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.glob("*.toml")] == ["taken.toml"]


def test_the_schema_is_printed_alike_for_people_and_programs(asking: Asking) -> None:
    _, data = answered(asking("devices", "schema", "--json"))
    code, text = asking("devices", "schema")
    assert code == 0
    assert json.loads(text) == data["schema"]


def test_an_ethos_u_is_shown_with_what_vela_is_told(asking: Asking) -> None:
    code, text = asking("devices", "show", "corstone_300")
    assert code == 0
    assert "compiled by Vela for ethos-u55-128" in text


def test_a_runtime_that_no_target_emits_for_is_predicted_only(
    asking: Asking, tmp_path: Path
) -> None:
    own = tmp_path / "strange.toml"
    text = profile_text(load_device("nucleo_l4r5zi"))
    text = text.replace('target = "tflite"', 'target = "nowhere"')
    own.write_text(text.replace('name = "nucleo_l4r5zi"', 'name = "strange"'))
    code, shown = asking("devices", "show", str(own))
    assert code == 0
    assert "no installed target emits for it" in shown
