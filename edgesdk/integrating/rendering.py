"""Templates of generated code: strict, and every text of an artifact through a filter."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import jinja2

from edgesdk.integrating import naming
from edgesdk.integrating.app import Contents
from edgesdk.integrating.literals import FILTERS


def render(contents: Contents, folder: Path) -> tuple[str, ...]:
    """Write an app's files into an empty folder and return their names, sorted."""
    for name, template in contents.templates.items():
        text = environment().get_template(template).render(contents.values)
        _place(folder, name).write_text(text, encoding="utf-8")
    for name, source in contents.copies.items():
        if source.is_dir():
            shutil.copytree(source, _place(folder, name))
        else:
            shutil.copyfile(source, _place(folder, name))
    for name, data in contents.data.items():
        _place(folder, name).write_bytes(data)
    return tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))


@cache
def environment() -> jinja2.Environment:
    """Return the environment of all templates.

    ``[[ value ]]`` and ``[% statement %]``: the braces belong to the generated languages.
    """
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("edgesdk.integrating", "templates"),
        autoescape=False,  # noqa: S701 - five languages; each value goes through its own filter
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
    )
    made.filters.update(FILTERS)
    for style in (naming.snake, naming.camel, naming.pascal, naming.kebab, naming.flat):
        made.filters[style.__name__] = style
    return made


def _place(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
