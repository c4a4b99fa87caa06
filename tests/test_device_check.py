"""Every problem of a profile, also those that only a target knows of."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk import device_files
from edgesdk.device import DeviceProfile
from edgesdk.device_check import check_profiles
from edgesdk.device_document import _problems, profile_problems, with_sources
from edgesdk.device_files import load_device
from edgesdk.device_text import profile_text
from edgesdk.document import from_builtins
from edgesdk.errors import ProfileError, UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "device_profiles"
    folder.mkdir()
    monkeypatch.setattr(device_files, "user_config_path", lambda _name: tmp_path)
    return folder


def write(folder: Path, like: str, *changes: tuple[str, str], name: str = "mine") -> Path:
    text = profile_text(load_device(like))
    for old, new in ((f'name = "{like}"', f'name = "{name}"'), *changes):
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def said(path: Path) -> str:
    (checked,) = check_profiles([str(path)])
    return " ".join(str(problem) for problem in checked.problems)


def test_packaged_profiles_have_none() -> None:
    assert [item for item in check_profiles() if item.problems] == []


def test_what_a_target_has_against_a_runtime(folder: Path) -> None:
    path = write(folder, "iphone_12", ('"iOS17"', '"iOS3"'))
    assert profile_problems(path) == ()
    assert "unknown minimum_version of a Core ML runtime 'iOS3'" in said(path)
    path = write(folder, "host", ('delegate = "xnnpack"', 'delegate = "qnn"'))
    assert "emits no fp32 for its executorch runtime" in said(path)


def test_every_problem_is_named_once(folder: Path) -> None:
    path = write(
        folder, "host", ("threads = 1", "threads = 0"), ("title =", "titel ="), ("4294967296", "4")
    )
    problems = [str(problem) for problem in profile_problems(path)]
    assert len(problems) == len(set(problems)) == 5  # ram, threads twice, titel, title


def test_one_way_of_running_stated_twice(folder: Path) -> None:
    path = write(folder, "jetson_orin_nano")
    text = path.read_text(encoding="utf-8")
    start = text.index("[[runtime]]")
    path.write_text(text + "\n" + text[start:], encoding="utf-8")
    assert "executorch xnnpack cpu 1 thread(s) in two [[runtime]] tables" in said(path)


def test_no_float_precision_for_the_baseline(folder: Path) -> None:
    path = write(folder, "iphone_12", ("precisions.fp16", "precisions.int8x"))
    assert "int8x" in said(path)
    text = profile_text(load_device("iphone_12")).replace('"iphone_12"', '"mine"', 1)
    head, _, rest = text.partition("[runtime.precisions.fp16]")
    path.write_text(head + rest[rest.index("[runtime.precisions.int8]") :], encoding="utf-8")
    assert "lists no float precision" in said(path)


def test_a_calibrated_profile_replaces_the_packaged_one(folder: Path) -> None:
    path = write(
        folder,
        "host",
        ('kind = "computer"', 'kind = "computer"\ncalibrated_from = "host"'),
        name="host",
    )
    assert load_device("host").calibrated_from == "host"
    assert [item.path for item in check_profiles(["host"])] == [path]


@pytest.mark.parametrize("text", ['calibrated_from = "host_2"', "calibrated_from = [", ""])
def test_no_other_profile_does(folder: Path, text: str) -> None:
    (folder / "host.toml").write_text(text, encoding="utf-8")
    (clash,) = [item for item in check_profiles() if item.problems]
    assert clash.path == folder / "host.toml"
    assert "two device profiles are named 'host'" in str(clash.problems[0])


LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]),
    st.just({}), st.just({"value": 1.0}), st.just({"value": "x", "source": 3, "kind": []}),
    st.lists(st.integers(), max_size=2),
)  # fmt: skip


def places(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to everything inside a document."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    inside = [path for key, item in items for path in places(item, (*where, key))]
    return [where, *inside] if where else inside


@given(data=st.data())
def test_whatever_a_document_holds_is_a_problem_or_a_profile(data: st.DataObject) -> None:
    document = tomllib.loads(profile_text(load_device("nucleo_l4r5zi")))
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(places(document)))
        table: Any = document
        for key in parents:
            table = table[key]
        table[last] = data.draw(LEAF)
    filled = with_sources(document)
    problems = list(_problems(Path("nucleo_l4r5zi.toml"), filled))
    assert all(isinstance(problem, ProfileError) for problem in problems)
    if not problems:
        what = "device profile"
        assert from_builtins(DeviceProfile, filled, what=what, error=ProfileError).runtime


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match=r"unknown device 'hots'.*'host'"):
        check_profiles(["hots"])
