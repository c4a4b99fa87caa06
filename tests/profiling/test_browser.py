"""The browser runner as far as it goes without one; the page itself is tested where it is made."""

from __future__ import annotations

import shutil
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from measuring import EXAMPLE
from profiled import MODEL, job_of, make_artifact

from edgesdk.artifact import read_manifest, sha256_of
from edgesdk.errors import TargetUnavailable, UsageError
from edgesdk.profiling import browser, page
from edgesdk.profiling.page import build_page
from edgesdk.profiling.profile import check_belongs, join_profile
from edgesdk.progress import Silent

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "examples/artifacts"


@pytest.mark.parametrize(("place", "words"), [("opengl", "opengl"), ("wasm:2", "wasm:2")])
def test_an_accelerator_that_browsers_do_not_have_is_refused(place: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        browser.measure(place, job_of(ARTIFACTS / "digits_phone"))


def test_more_threads_than_the_page_has_are_refused() -> None:
    with pytest.raises(UsageError, match="one thread"):
        browser.measure("", job_of(ARTIFACTS / "digits_phone", threads=4))


def test_an_artifact_for_another_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a browser runs LiteRT"):
        build_page(ARTIFACTS / "digits_board", tmp_path, Silent())


def test_litert_in_a_browser_runs_the_file_but_is_not_the_device(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "out", minimum_runtime="9.9.9", threads=4)
    manifest = read_manifest(folder)
    identity = replace(EXAMPLE.identity, runtime="litert.js", version="2.5.3")
    digest = sha256_of(folder / MODEL)
    for device in ("browser", manifest.device):
        measured = replace(EXAMPLE, artifact_sha256=digest, device=device, identity=identity)
        check_belongs(measured, manifest, folder)
        assert join_profile(folder, manifest, measured).predicted is None
    native = replace(measured, identity=replace(identity, runtime="litert", version="9.9.9"))
    assert join_profile(folder, manifest, native).predicted is not None


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Make those shell scripts, by name, the only programs on the path."""
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("scripts", "words"),
    [
        ({}, "npm is not installed"),
        ({"npm": "exit 0"}, "node is not installed"),
        ({"npm": "exit 0", "node": "echo v18.20.4"}, "node is v18.20.4"),
        ({"npm": "exit 0", "node": "exit 1"}, "node is of no version"),
        (
            {"npm": "echo npm error code ENOTFOUND >&2; exit 1", "node": "echo v20.1.0"},
            "cannot reach its registry: ENOTFOUND",
        ),
        (
            {"npm": "echo npm error code EINTEGRITY >&2; exit 1", "node": "echo v22.0.0"},
            "cannot install the page's packages: npm error code EINTEGRITY",
        ),
    ],
)
def test_what_the_page_needs_is_named(
    scripts: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, **scripts)
    (tmp_path / "page").mkdir()
    with pytest.raises(TargetUnavailable, match=words) as problem:
        build_page(ARTIFACTS / "digits_phone", tmp_path / "page", Silent())
    if "node" in words or "npm is" in words:
        assert "install Node.js 20 or newer" in str(problem.value)


def test_packages_are_installed_once_without_their_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_root: Path
) -> None:
    log, mkdir = tmp_path / "log", shutil.which("mkdir")
    npm = f'echo "$@" >> {log}\nif [ "$1" = ci ]; then {mkdir} node_modules; else {mkdir} dist; fi'
    programs(tmp_path / "bin", monkeypatch, npm=npm, node="echo v20.1.0")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        built = build_page(ARTIFACTS / "digits_phone", tmp_path / name, Silent())
        assert built == tmp_path / name / "page/dist"
        assert built.is_dir()
    commands = log.read_text().splitlines()
    assert [line.split()[0] for line in commands] == ["ci", "run", "run"]
    assert "--ignore-scripts" in commands[0]
    assert list((cache_root / "npm").iterdir())


def test_what_npm_started_ends_with_it_when_it_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """npm starts node, which starts others: killing npm alone would leave them."""
    started, sleep = tmp_path / "started", shutil.which("sleep")
    npm = f"{sleep} 600 &\necho $! > {started}\nwait"
    programs(tmp_path / "bin", monkeypatch, npm=npm, node="echo v20.1.0")
    monkeypatch.setattr(page, "_MINUTES", 1 / 60)
    (tmp_path / "page").mkdir()
    with pytest.raises(TargetUnavailable, match="npm ci did not end within"):
        build_page(ARTIFACTS / "digits_phone", tmp_path / "page", Silent())
    assert not is_running(int(started.read_text()))


def is_running(number: int) -> bool:
    """Return whether a process is alive, after a while for its end; one that is reaped is not."""
    state = Path(f"/proc/{number}/stat")
    for _ in range(100):
        try:
            if state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.1)
    return True
