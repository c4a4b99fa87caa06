"""Every Python block, every ``edgesdk`` command and every shown file of the documentation."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT, Block, Command, page_id, read_blocks, read_commands
from reference import Register

_SHELL = ("bash", "console")
_LONG = re.compile(
    r"edgesdk (compile|plan|inspect|verify|integrate|profile)\b|edgesdk\.compile|"
    r"make_plan\(|read_manifest"
)
_TIME_LIMIT_S = 600
_BLOCKS = [block for page in PAGES for block in read_blocks(page)]


def _is_executable(block: Block) -> bool:
    return block.language in _SHELL or (block.language == "python" and block.file is None)


def _executable_pages() -> list[Any]:
    params = []
    for page in PAGES:
        blocks = [block for block in read_blocks(page) if _is_executable(block)]
        if not blocks:
            continue
        is_long = any(_LONG.search(block.text) for block in blocks)
        marks = [pytest.mark.slow, pytest.mark.toolchain] if is_long else []
        params.append(pytest.param(page, id=page_id(page), marks=marks))
    return params


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step cache for all pages, those that another worker of this run tries included."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache-of-the-pages"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def workplace(
    tmp_path: Path, shared_cache: Path, register_target: Register, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An empty folder that holds only the examples, where the guide's target is installed."""
    source = ROOT / "examples/reference_target"
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, entry_point in project["entry-points"]["edgesdk.targets"].items():
        register_target(name, entry_point, source)
    folder = tmp_path / "work"
    shutil.copytree(ROOT / "examples", folder / "examples")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EDGESDK_CACHE", str(shared_cache))
    monkeypatch.setenv("EDGESDK_STORE", str(tmp_path / "data"))
    # The examples' networks are so small that a second thread only waits for the first.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.mark.parametrize("page", _executable_pages())
def test_page_runs(page: Path, workplace: Path, request: pytest.FixtureRequest) -> None:
    """A page's blocks run in order, in one folder, as someone reading it would type them."""
    if any("keras" in block.text for block in read_blocks(page) if _is_executable(block)):
        request.getfixturevalue("tensorflow")  # installed once for all tests
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in read_blocks(page):
        if not _is_executable(block):
            continue
        if block.language == "python":
            padding = "\n" * (block.line - 1)
            exec(compile(padding + block.text, str(page), "exec"), names)  # noqa: S102 - our pages
        else:
            for command in read_commands(block):
                _run(command, block)


def _run(command: Command, block: Block) -> None:
    where = f"{page_id(block.page)}, line {block.line}: {command.text}"
    program, *arguments = command.arguments
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets, where
        return
    assert program == "edgesdk", f"{where}: only make and edgesdk commands are tried"
    done = subprocess.run(
        [sys.executable, "-m", "edgesdk", *arguments],
        capture_output=True,
        text=True,
        timeout=_TIME_LIMIT_S,
        check=False,
    )
    assert done.returncode == command.exit_code, f"{where}\n{done.stdout}\n{done.stderr}"
    if "--json" in arguments:
        assert isinstance(json.loads(done.stdout), dict), where


@pytest.mark.parametrize(
    "block",
    [block for block in _BLOCKS if block.file],
    ids=lambda block: f"{page_id(block.page)}-{block.file}",
)
def test_shown_file_is_the_file(block: Block) -> None:
    assert block.file is not None
    assert block.text == (ROOT / block.file).read_text(encoding="utf-8")


def test_every_block_is_tried_or_shown() -> None:
    """A block in a language nobody runs has to show a file or to be plain text."""
    unknown = [
        f"{page_id(block.page)}, line {block.line}: {block.language}"
        for block in _BLOCKS
        if not _is_executable(block) and block.file is None and block.language not in ("", "text")
    ]
    assert not unknown
