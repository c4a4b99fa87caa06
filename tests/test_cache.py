import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.cache import Cache, default_root, key_of
from edgesdk.errors import OutputError
from edgesdk.figure import Figure
from edgesdk.plan import Quantize

KEY = "0" * 64


class Builder:
    """A build that writes a file and counts how often it ran."""

    def __init__(self, content: str = "result") -> None:
        self.content = content
        self.runs = 0

    def __call__(self, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        self.runs += 1
        (folder / "result.txt").write_text(self.content)
        (folder / "nested").mkdir()
        (folder / "nested" / "more").write_bytes(b"\x00\x01")


def whole(folder: Path) -> bool:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return files == {"result.txt", "nested/more"}


def test_a_result_is_built_once(tmp_path: Path) -> None:
    build = Builder()
    first = Cache(tmp_path).folder("step", KEY, build)
    second = Cache(tmp_path).folder("step", KEY, build)
    assert first == second
    assert whole(first)
    assert build.runs == 1


def test_other_keys_and_steps_are_other_results(tmp_path: Path) -> None:
    cache, build = Cache(tmp_path), Builder()
    folders = {cache.folder(step, key, build) for step in ("a", "b") for key in (KEY, "1" * 64)}
    assert len(folders) == 4
    assert build.runs == 4


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_a_failed_build_leaves_nothing(tmp_path: Path, problem: type[BaseException]) -> None:
    cache = Cache(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise problem

    with pytest.raises(problem):
        cache.folder("step", KEY, fail)
    assert not cache.has("step", KEY)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert whole(cache.folder("step", KEY, Builder()))


def test_a_killed_build_leaves_nothing_that_counts(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from edgesdk.cache import Cache\n"
        "def build(folder):\n"
        "    (folder / 'result.txt').write_text('half'); os.kill(os.getpid(), 9)\n"
        f"Cache(Path(sys.argv[1])).folder('step', '{KEY}', build)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -9
    cache, build = Cache(tmp_path), Builder()
    assert not cache.has("step", KEY)
    assert whole(cache.folder("step", KEY, build))
    assert build.runs == 1


def damage_content(home: Path) -> None:
    (home / "content" / "result.txt").write_text("Result")


def remove_a_file(home: Path) -> None:
    (home / "content" / "nested" / "more").unlink()


def add_a_file(home: Path) -> None:
    (home / "content" / "new").write_text("")


def remove_the_seal(home: Path) -> None:
    (home / "seal.json").unlink()


def empty_the_seal(home: Path) -> None:
    (home / "seal.json").write_text("")


def fill_the_seal_with_noise(home: Path) -> None:
    (home / "seal.json").write_bytes(b"\xff\xfe\x80")


def fill_the_seal_with_other_json(home: Path) -> None:
    (home / "seal.json").write_text("[1, null]")


def forge_an_old_seal(home: Path) -> None:
    (home / "seal.json").write_text(json.dumps({"sha256": "0" * 64}))


@pytest.mark.parametrize(
    "damage",
    [damage_content, remove_a_file, add_a_file, remove_the_seal, empty_the_seal,
     fill_the_seal_with_noise, fill_the_seal_with_other_json, forge_an_old_seal],
)  # fmt: skip
def test_a_damaged_result_is_built_anew(tmp_path: Path, damage: object) -> None:
    cache = Cache(tmp_path)
    folder = cache.folder("step", KEY, Builder())
    assert callable(damage)
    damage(folder.parent)
    assert not cache.has("step", KEY)
    build = Builder("again")
    assert (cache.folder("step", KEY, build) / "result.txt").read_text() == "again"
    assert build.runs == 1
    assert cache.has("step", KEY)


def test_a_damaged_result_stays_until_its_successor_is_whole(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    damage_content(cache.folder("step", KEY, Builder()).parent)

    def fail(folder: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.folder("step", KEY, fail)
    assert (tmp_path / "step" / KEY / "content" / "result.txt").read_text() == "Result"


def test_a_faster_builder_wins_and_its_result_is_not_touched(tmp_path: Path) -> None:
    slow = Cache(tmp_path)
    faster = Builder("faster")

    def build(folder: Path) -> None:
        theirs = Cache(tmp_path).folder("step", KEY, faster)
        (folder / "result.txt").write_text("slower")
        build.inode = theirs.stat().st_ino  # type: ignore[attr-defined]

    found = slow.folder("step", KEY, build)
    assert (found / "result.txt").read_text() == "faster"
    assert found.stat().st_ino == build.inode  # type: ignore[attr-defined]
    assert sorted(os.listdir(tmp_path / "step")) == [KEY]


def test_many_builders_at_once_all_get_a_whole_result(tmp_path: Path) -> None:
    count = 8
    together = threading.Barrier(count)
    found: list[bool] = []

    def build(folder: Path) -> None:
        together.wait(timeout=10)
        Builder()(folder)

    def ask() -> None:
        found.append(whole(Cache(tmp_path).folder("step", KEY, build)))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * count
    assert sorted(os.listdir(tmp_path / "step")) == [KEY]


@pytest.mark.parametrize("place", ["", "step"])
def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path, place: str) -> None:
    root = tmp_path / "cache"
    blocked = root / place
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file, not a folder")
    with pytest.raises(OutputError, match="EDGESDK_CACHE"):
        Cache(root).folder("step", KEY, Builder())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "step").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="EDGESDK_CACHE"):
        Cache(tmp_path).folder("step", KEY, Builder())


def test_scratch_survives_until_it_is_dropped(tmp_path: Path) -> None:
    (Cache(tmp_path).scratch("recover", KEY) / "epoch").write_text("3")
    assert (Cache(tmp_path).scratch("recover", KEY) / "epoch").read_text() == "3"
    Cache(tmp_path).drop_scratch("recover", KEY)
    Cache(tmp_path).drop_scratch("recover", KEY)
    assert list(Cache(tmp_path).scratch("recover", KEY).iterdir()) == []


def test_the_environment_names_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("EDGESDK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "edgesdk" in str(default_root())


PART = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4)
)


@given(st.lists(PART, max_size=4), st.lists(PART, max_size=4))
def test_keys_are_equal_only_for_equal_parts(one: list[object], other: list[object]) -> None:
    same = [repr(part) for part in one] == [repr(part) for part in other]
    assert (key_of(*one) == key_of(*other)) == same


def test_a_key_covers_dataclasses_field_by_field() -> None:
    first = Figure(value=1.0, standing="measured")
    assert key_of(first) == key_of(Figure(value=1.0, standing="measured"))
    assert key_of(first) != key_of(Figure(value=1.0, standing="verified"))
    assert key_of(Quantize(scheme="int8")) != key_of(Quantize(scheme="fp16"))


def test_a_key_is_the_same_in_every_process() -> None:
    script = "from edgesdk.cache import key_of; print(key_of('a', 1, None, 0.5))"
    said = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )
    assert said.stdout.strip() == key_of("a", 1, None, 0.5)
