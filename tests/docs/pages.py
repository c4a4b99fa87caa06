"""The project's Markdown pages, taken apart: links, code blocks and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)

_FENCE = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_EXIT_CODE = re.compile(r"#\s*exit code (\d+)\s*$")


def page_id(page: Path) -> str:
    """Return a page's path for people."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its language, text, first line, and the file it says it shows."""

    page: Path
    language: str
    text: str
    line: int
    file: str | None


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line of a block, and the exit code its comment promises."""

    arguments: tuple[str, ...]
    exit_code: int
    text: str


def read_blocks(page: Path) -> list[Block]:
    """Return a page's fenced blocks in order."""
    content = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            language=found["language"],
            text=found["text"],
            line=content.count("\n", 0, found.start("text")) + 1,
            file=found["file"],
        )
        for found in _FENCE.finditer(content)
    ]


def read_commands(block: Block) -> Iterator[Command]:
    """Yield the command lines of a ``bash`` or ``console`` block."""
    for line in block.text.splitlines():
        arguments = shlex.split(line.removeprefix("$ "), comments=True)
        if not arguments or (block.language == "console" and not line.startswith("$ ")):
            continue
        code = _EXIT_CODE.search(line)
        yield Command(
            arguments=tuple(arguments), exit_code=int(code[1]) if code else 0, text=line.strip()
        )


def read_prose(page: Path) -> str:
    """Return a page's text without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def read_rows(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table whose first column is called ``heading``."""
    rows: list[list[str]] = []
    for line in read_prose(page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if rows and not cells:
            break
        if rows or cells[:1] == [heading]:
            rows.append(cells)
    return rows[2:]
