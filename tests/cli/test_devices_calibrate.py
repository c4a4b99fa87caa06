from pathlib import Path

import pytest
from answers import Asking, answered


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["samsung_galaxy_s24"], "nothing here can measure samsung_galaxy_s24"),
        (["samsung_galaxy_s24", "--threads", "1"], "--threads is for microbenchmarks"),
        (["samsung_galaxy_s24", "--time", "9min"], "--time is for microbenchmarks"),
        (["host", "--time", "9 parsecs"], "is not a time"),
        (["host", "--threads", "0"], "0 threads cannot be calibrated here"),
        (["host", "-o", "mine.toml"], "cannot be in a file named mine.toml"),
    ],
)
def test_what_cannot_be_asked(asking: Asking, words: list[str], said: str) -> None:
    code, answer = answered(asking("devices", "calibrate", *words, "--json"))
    assert code == 2
    assert said in answer["message"]


def test_an_unknown_device_and_a_missing_measurement(asking: Asking, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.json")
    code, answer = answered(asking("devices", "calibrate", "hots", "--from", missing, "--json"))
    assert code == 2
    assert "host" in answer["message"]
    code, answer = answered(asking("devices", "calibrate", "host", "--from", missing, "--json"))
    assert code == 9
    assert "does not exist" in answer["message"]


def test_nothing_is_overwritten_where_a_file_was_named(asking: Asking, tmp_path: Path) -> None:
    (tmp_path / "host.toml").write_text("mine")
    code, _ = answered(
        asking("devices", "calibrate", "host", "-o", str(tmp_path / "host.toml"), "--json")
    )
    assert code == 11
    assert (tmp_path / "host.toml").read_text() == "mine"
