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


def test_its_lock_file_pins_every_package_by_hash_at_the_public_registry() -> None:
    packages = json.loads((PAGE / "package-lock.json").read_text())["packages"]
    assert len(packages) > 40
    for name, package in packages.items():
        if name:
            assert package["integrity"].startswith("sha512-"), name
            assert package["resolved"].startswith("https://registry.npmjs.org/"), name


def test_its_lock_file_knows_bundlers_for_other_machines() -> None:
    packages = json.loads((PAGE / "package-lock.json").read_text())["packages"]
    for machine in ("darwin-arm64", "linux-arm64", "win32-x64"):
        for tool in ("@esbuild/", "@rollup/rollup-"):
            assert any(name.startswith(f"node_modules/{tool}{machine}") for name in packages)


def test_it_loads_nothing_from_another_host() -> None:
    sources = [*PAGE.glob("src/*"), PAGE / "index.html", PAGE / "vite.config.ts"]
    assert len(sources) > 5
    for path in sources:
        assert not re.search(r"(https?:)?//[a-z]+\.", path.read_text()), path.name
