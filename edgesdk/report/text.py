"""REPORT.md: what was asked, what came out, how it is known, and how to reproduce it."""

from __future__ import annotations

from typing import Any

import jinja2

from edgesdk.artifact import Manifest
from edgesdk.budget import format_figure
from edgesdk.figure import Figure, FigureName, Figures
from edgesdk.plan import Plan

_NAMES: tuple[FigureName, ...] = (
    "latency_ms",
    "size_bytes",
    "download_bytes",
    "flash_bytes",
    "memory_bytes",
    "energy_mj",
    "accuracy",
    "accuracy_drop",
)


def render_report(manifest: Manifest, plan: Plan) -> str:
    """Return the report as Markdown; every number in it is a field of the manifest or plan."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgesdk.report", "templates"),
        autoescape=False,  # noqa: S701 - Markdown for a terminal, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["figure"] = lambda figure, name: show_figure(name, figure)
    environment.filters["limit"] = lambda value, name: format_figure(name, value)
    return environment.get_template("report.md.j2").render(
        manifest=manifest, plan=plan, rows=_rows(manifest)
    )


def _rows(manifest: Manifest) -> list[dict[str, Any]]:
    sections: tuple[Figures, ...] = (
        manifest.baseline,
        manifest.predicted,
        {**manifest.interpreted, **manifest.verified},
        manifest.measured,
    )
    return [
        {"name": name, "cells": [show_figure(name, section.get(name)) for section in sections]}
        for name in _NAMES
        if any(name in section for section in sections)
    ]


def show_figure(name: FigureName, figure: Figure | None) -> str:
    """Return a figure for a table cell, with the interval of a prediction; a dash if unknown."""
    if figure is None:
        return "–"
    text = format_figure(name, figure.value)
    if figure.standing == "predicted" and figure.low is not None and figure.high is not None:
        low, high = format_figure(name, figure.low), format_figure(name, figure.high)
        text += f" ({low} to {high})"
    return text
