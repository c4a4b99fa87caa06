"""The page's files, as far as they can be read without building it."""

from __future__ import annotations

import json
import re

from sealed import ROOT

PAGE = ROOT / "apps/web"


def test_its_dependencies_are_pinned() -> None:
    package = json.loads((PAGE / "package.json").read_text())
    for group in ("dependencies", "devDependencies"):
        assert package[group]
        for name, version in package[group].items():
            assert re.fullmatch(r"\d+\.\d+\.\d+", version), name


def test_it_loads_nothing_from_another_host() -> None:
    sources = [*PAGE.glob("src/*"), PAGE / "index.html", PAGE / "vite.config.ts"]
    assert len(sources) > 5
    for path in sources:
        assert not re.search(r"(https?:)?//[a-z]+\.", path.read_text()), path.name
