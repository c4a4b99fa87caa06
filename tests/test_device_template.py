"""The template of a new profile."""

from pathlib import Path

import pytest

from edgesdk.device_document import profile_problems, read_profile
from edgesdk.device_files import load_device, profile_names
from edgesdk.device_template import LEAST_ERROR_FACTOR, template_text


@pytest.mark.parametrize("like", profile_names())
def test_it_is_valid_and_every_number_is_someone_else_s(like: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(template_text("mine", load_device(like)), encoding="utf-8")
    assert profile_problems(path) == ()
    profile = read_profile(path)
    assert profile.ram_bytes.kind == "estimated"
    assert like in profile.ram_bytes.source
    for runtime in profile.runtime:
        assert runtime.evidence == ()
        for cost in runtime.precisions.values():
            assert cost.error_factor.value >= LEAST_ERROR_FACTOR
            assert cost.mac_per_s.kind == "estimated"


def test_every_key_is_explained_once() -> None:
    lines = template_text("mine", load_device("corstone_300")).splitlines()
    for key in ("title =", "ram_bytes =", "[[runtime]]", "unit =", "cpu_operators ="):
        first, *more = [number for number, line in enumerate(lines) if line.startswith(key)]
        assert lines[first - 1].startswith("# ")
        assert not any(lines[number - 1].startswith("# ") for number in more)
