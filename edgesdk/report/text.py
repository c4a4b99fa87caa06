"""REPORT.md: what was asked, what came out, how it is known, and how to reproduce it."""

from __future__ import annotations

import jinja2

from edgesdk.figure import TITLES
from edgesdk.report.data import ArtifactData
from edgesdk.report.words import show_condition, show_figure, show_limit


def render_text(artifact: ArtifactData) -> str:
    """Return the report on one artifact as Markdown; every number in it is a field of the data."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgesdk.report", "templates"),
        autoescape=False,  # noqa: S701 - Markdown for a terminal, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["figure"] = lambda figure, name: show_figure(name, figure)
    environment.filters["limit"] = show_limit
    environment.filters["condition"] = show_condition
    return environment.get_template("report.md.j2").render(artifact=artifact, titles=TITLES)
