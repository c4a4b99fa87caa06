"""Draw a chart: a Vega-Lite specification to static, labelled SVG that follows the page's theme."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from edgesdk.errors import TargetUnavailable

Spec = Mapping[str, Any]

_NAMESPACE = "http://www.w3.org/2000/svg"
# What only an interactive chart needs, and roles that a single image with a text makes noise.
_DROPPED = ("role", "class", "pointer-events", "aria-label", "aria-roledescription", "aria-hidden")
_INSTALL = 'pip install "edgesdk[report]"'

# Colours are the page's CSS variables, so that one drawing serves light, dark and paper.
_INK, _SOFT, _LINE = "var(--ink)", "var(--soft)", "var(--line)"
STYLE: Spec = {
    "background": None,
    "padding": 4,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _SOFT, "labelFontSize": 12, "labelPadding": 6,
        "titleColor": _SOFT, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8,
        "gridColor": _LINE, "domain": False, "ticks": False, "tickCount": 4,
    },
    "axisY": {"grid": False},
    "title": {
        "color": _INK, "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 10,
    },
    "text": {"color": _INK, "fontSize": 12},
}  # fmt: skip


def draw(spec: Spec, *, name: str, title: str, description: str) -> str:
    """Return a chart as one ``<svg>``: text is text, and a title and description name it.

    ``name`` is unique in the page and starts every id in the drawing. Nothing is fetched: all data
    is in ``spec``, and the renderer may reach no address. Raises ``TargetUnavailable`` where the
    renderer is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise TargetUnavailable(
            "drawing charts needs vl-convert-python, which is not installed",
            next_step=f"run '{_INSTALL}'",
            details={"install": _INSTALL},
        ) from None
    text = vl_convert.vegalite_to_svg(
        json.dumps({**spec, "config": STYLE}), vl_version=_VERSION, allowed_base_urls=[]
    )
    return _labelled(ET.fromstring(text), name, title, description)  # noqa: S314 - see the import


_VERSION = "6.4"


def _labelled(root: ET.Element, name: str, title: str, description: str) -> str:
    """Return the drawing as an image with a text, its ids prefixed and interactivity removed."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.get("display") == "none":
                parent.remove(child)
        for attribute in _DROPPED:
            parent.attrib.pop(attribute, None)
        for attribute, value in parent.attrib.items():
            parent.set(attribute, value.replace("url(#", f"url(#{name}-"))
        if "id" in parent.attrib:
            parent.set("id", f"{name}-{parent.attrib['id']}")
    for tag, text in (("desc", description), ("title", title)):
        element = ET.Element(f"{{{_NAMESPACE}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(0, element)
    root.attrib.pop("version", None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    ET.register_namespace("", _NAMESPACE)
    return ET.tostring(root, encoding="unicode")
