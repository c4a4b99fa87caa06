"""A Swift package and a sample view: Core ML or ExecuTorch, whichever the artifact is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgesdk.artifact import files_under, sha256_of
from edgesdk.integrating.app import App, Contents
from edgesdk.integrating.interface import Interface
from edgesdk.integrating.naming import pascal, version

_TYPES: Mapping[str, tuple[str, ...]] = {
    "coreml": ("float32", "float16", "int32"),
    "executorch": ("float32", "int32", "int64"),
}
_BACKENDS = ("xnnpack", "coreml")
"""What ExecuTorch's Swift package brings, each as a product of its own."""
_SWIFT = (
    "Constants.swift", "Measurement.swift", "Model.swift", "Processing.swift", "SampleView.swift",
    "SelfTest.swift",
)  # fmt: skip


def _refuses(interface: Interface) -> str | None:
    manifest = interface.manifest
    if manifest.runtime not in _TYPES:
        return f"it runs on {manifest.runtime}, and an iOS app runs Core ML or ExecuTorch"
    if manifest.runtime == "executorch" and manifest.delegate not in _BACKENDS:
        return f"it is for {manifest.delegate}, and ExecuTorch's Swift package has {_BACKENDS}"
    taken = _TYPES[manifest.runtime]
    for tensor in (*manifest.inputs, *manifest.outputs):
        if tensor.dtype not in taken or tensor.scale is not None:
            return f"{tensor.name!r} is {tensor.dtype}, and Swift's interface takes {taken}"
    return None


def _contents(interface: Interface) -> Contents:
    runtime = interface.manifest.runtime
    # "Kit" keeps the module's name apart from every type in it.
    module = f"{pascal(interface.words)}Kit"
    model = "model.pte" if runtime == "executorch" else "model.mlpackage"
    source = f"Sources/{module}"
    templates = {f"{source}/{name}": f"ios/model/{name}.j2" for name in _SWIFT}
    templates[f"{source}/Session.swift"] = f"ios/model/{runtime}.swift.j2"
    templates |= {name: f"ios/{name}.j2" for name in ("Package.swift", "README.md")}
    templates[".gitignore"] = "ios/gitignore.j2"
    values = {
        "interface": interface,
        "manifest": interface.manifest,
        "module": module,
        "model_file": model,
        "sha256": interface.sha256,
        "file_hashes": _file_hashes(interface.model),
        "minimum": version(interface.manifest.minimum_runtime),
    }
    return Contents(
        templates=templates,
        values=values,
        copies={f"{source}/Resources/{model}": interface.model},
        data={f"{source}/Resources/golden.bin": interface.golden_bytes},
    )


def _file_hashes(model: Path) -> list[tuple[str, str]]:
    """Return each file's path below the model ("" for the model itself) and its SHA-256."""
    return [
        ("" if file == model else file.relative_to(model).as_posix(), sha256_of(file))
        for file in files_under(model)
    ]


APP = App(
    name="ios",
    summary="a Swift package and a sample view with Core ML or ExecuTorch",
    is_built=False,
    refuses=_refuses,
    contents=_contents,
)
