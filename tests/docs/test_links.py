"""Links, paths and commands that the documentation names, against what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import PAGES, ROOT, page_id, read_prose

import edgesdk.cli
from edgesdk.cli.app import app

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(
    r"`(?:python )?("
    r"(?:edgesdk|targets|docs|examples|tests|benchmarks|device_profiles|apps)/[\w./-]*"
    r"|[A-Z]\w+\.md|LICENSE|Makefile|constraints\.txt|pyproject\.toml)(?::\w+)?`"
)
_WRITTEN_FOR_THE_USER = {"REPORT.md"}


def _slugs(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", read_prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(read_prose(page)):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in _slugs(target), link


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_paths_exist(page: Path) -> None:
    named = set(_PATH.findall(read_prose(page))) - _WRITTEN_FOR_THE_USER
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(read_prose(index))}
    assert [page_id(p) for p in PAGES if p.is_relative_to(ROOT / "docs") and p != index] == [
        page_id(p) for p in PAGES if p.is_relative_to(ROOT / "docs") and p != index and p in linked
    ]


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


COMMANDS = dict(_commands(typer.main.get_command(app), "edgesdk"))


def test_commands_are_found() -> None:
    assert edgesdk.cli.main
    assert "edgesdk compile" in COMMANDS
    assert "edgesdk devices show" in COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented(name: str) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.search(rf"\b{name}\b", text)
    for parameter in COMMANDS[name].params:
        spellings = [option for option in parameter.opts if option.startswith("-")]
        named = [option for option in spellings if re.search(rf"[ `]{option}\b", text)]
        assert named or not spellings, spellings


@pytest.mark.parametrize("name", COMMANDS)
def test_command_teaches_itself(name: str) -> None:
    command = COMMANDS[name]
    help_text = " ".join(command.help.split())
    assert f"Example: {name}" in help_text
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []
