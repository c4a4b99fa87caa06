"""A Python package and command for Linux boards: LiteRT or ExecuTorch, and NumPy, nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from edgesdk.integrating.app import App, Contents
from edgesdk.integrating.interface import Interface
from edgesdk.integrating.naming import snake, version

# The runtime's file names and the distribution that runs it.
_RUNTIMES: Mapping[str, str] = {"litert": "ai-edge-litert", "executorch": "executorch"}
_MODULES = (
    "__init__.py", "__main__.py", "measurement.py", "model.py", "processing.py", "self_test.py",
)  # fmt: skip


# A package of one of these names would be imported in the place of what it is called like.
_IMPORTED = frozenset(sys.stdlib_module_names) | {"ai_edge_litert", "executorch", "numpy", "torch"}


def _refuses(interface: Interface) -> str | None:
    runtime = interface.manifest.runtime
    if runtime not in _RUNTIMES:
        return f"it runs on {runtime}, and a Linux app runs LiteRT or ExecuTorch"
    if runtime == "executorch" and interface.manifest.delegate != "xnnpack":
        return f"it is for {interface.manifest.delegate}, and ExecuTorch's wheel has XNNPACK alone"
    return None


def _contents(interface: Interface) -> Contents:
    runtime, package = interface.manifest.runtime, _package(interface)
    model = f"model{interface.model.suffix if interface.model.suffix == '.pte' else '.tflite'}"
    templates = {f"{package}/{name}": f"linux/{name}.j2" for name in _MODULES}
    templates |= {name: f"linux/{name}.j2" for name in ("README.md", "pyproject.toml")}
    templates[f"{package}/runtime.py"] = f"linux/{runtime}.py.j2"
    values = {
        "interface": interface,
        "manifest": interface.manifest,
        "package": package,
        "distribution": _RUNTIMES[runtime],
        "model_file": model,
        "sha256": interface.sha256,
        "minimum": version(interface.manifest.minimum_runtime),
    }
    return Contents(
        templates=templates,
        values=values,
        copies={f"{package}/{model}": interface.model},
        data={f"{package}/golden.bin": interface.golden_bytes},
    )


def _package(interface: Interface) -> str:
    name = snake(interface.words)
    return f"{name}_model" if name in _IMPORTED else name


APP = App(
    name="linux",
    summary="a Python package and command for Jetson, Raspberry Pi and other Linux boards",
    is_built=True,
    refuses=_refuses,
    contents=_contents,
)
