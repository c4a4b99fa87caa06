"""A Kotlin library and a sample activity: LiteRT or ExecuTorch, whichever the artifact is for."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.integrating.app import App, Contents
from edgesdk.integrating.interface import Interface
from edgesdk.integrating.naming import flat, version

# What each runtime's Kotlin interface can be given.
_TYPES: Mapping[str, tuple[str, ...]] = {
    "litert": ("float32", "int32", "int8"),
    "executorch": ("float32", "int32", "int64"),
}
_KOTLIN = ("Constants.kt", "Measurement.kt", "Model.kt", "Processing.kt", "SelfTest.kt")
_FILES = (
    "README.md", "build.gradle.kts", "gradle.properties", "model/build.gradle.kts",
    "model/src/main/AndroidManifest.xml", "sample/build.gradle.kts",
    "sample/src/main/AndroidManifest.xml", "settings.gradle.kts",
)  # fmt: skip


def _refuses(interface: Interface) -> str | None:
    manifest = interface.manifest
    if manifest.runtime not in _TYPES:
        return f"it runs on {manifest.runtime}, and an Android app runs LiteRT or ExecuTorch"
    if manifest.runtime == "executorch" and manifest.delegate != "xnnpack":
        return (
            f"it is for {manifest.delegate}, and ExecuTorch's library on Maven brings XNNPACK "
            "alone: build one with that delegate, and load the file as ExecuTorch's guide says"
        )
    taken = _TYPES[manifest.runtime]
    for tensor in (*manifest.inputs, *manifest.outputs):
        if tensor.dtype not in taken or (tensor.dtype == "int8") != (tensor.scale is not None):
            return f"{tensor.name!r} is {tensor.dtype}, and Kotlin's interface takes {taken}"
    return None


def _contents(interface: Interface) -> Contents:
    runtime, package = interface.manifest.runtime, flat(interface.words)
    source = f"src/main/kotlin/com/example/{package}"
    model = f"model.{'pte' if runtime == 'executorch' else 'tflite'}"
    templates = {name: f"android/{name.replace('src/main/', '')}.j2" for name in _FILES}
    templates |= {f"model/{source}/{name}": f"android/model/{name}.j2" for name in _KOTLIN}
    templates[f"model/{source}/Session.kt"] = f"android/model/{runtime}.kt.j2"
    templates[f"sample/{source}/sample/MainActivity.kt"] = "android/sample/MainActivity.kt.j2"
    templates[".gitignore"] = "android/gitignore.j2"
    values = {
        "interface": interface,
        "manifest": interface.manifest,
        "package": f"com.example.{package}",
        "model_file": model,
        "sha256": interface.sha256,
        "minimum": version(interface.manifest.minimum_runtime),
    }
    return Contents(
        templates=templates,
        values=values,
        copies={f"model/src/main/assets/{model}": interface.model},
        data={"model/src/main/assets/golden.bin": interface.golden_bytes},
    )


APP = App(
    name="android",
    summary="a Kotlin library and a sample activity with LiteRT or ExecuTorch",
    is_built=False,
    refuses=_refuses,
    contents=_contents,
)
