"""A page in TypeScript for Vite: LiteRT.js on WebAssembly, and on WebGPU where there is one."""

from __future__ import annotations

from edgesdk.integrating.app import App, Contents
from edgesdk.integrating.interface import Interface
from edgesdk.integrating.naming import snake

# LiteRT.js 2.5.3 refuses all others ("Element type INT8 is not supported").
_TYPES = ("float32", "int32")

_FILES = (
    "README.md", "copy_wasm.mjs", "index.html", "package-lock.json", "package.json",
    "src/bench.ts", "src/constants.ts", "src/curve.ts", "src/main.ts", "src/measurement.ts",
    "src/model.ts", "src/processing.ts", "src/selfTest.ts", "src/style.css",
    "tsconfig.json", "vite.config.ts",
)  # fmt: skip


def _refuses(interface: Interface) -> str | None:
    manifest = interface.manifest
    if manifest.target != "tflite":
        return f"it is for {manifest.runtime}, and a browser runs LiteRT"
    for tensor in (*manifest.inputs, *manifest.outputs):
        if tensor.dtype not in _TYPES or tensor.scale is not None:
            return f"{tensor.name!r} is {tensor.dtype}, and LiteRT.js takes {' and '.join(_TYPES)}"
    return None


def _contents(interface: Interface) -> Contents:
    images = [port for port in interface.inputs if port.is_image]
    scores = [port for port in interface.outputs if port.classes]
    # The page asks for a picture where that is all the model needs.
    is_picture = len(interface.inputs) == len(images) == 1 and images[0].app_shape[0] == 1
    can_show = is_picture and bool(scores) and images[0].app_shape[3] in (1, 3)
    values = {
        "interface": interface,
        "manifest": interface.manifest,
        "package": snake(interface.words),
        "sha256": interface.sha256,
        "image": images[0] if can_show else None,
        "scores": scores[0] if can_show else None,
    }
    templates = {name: f"web/{name}.j2" for name in _FILES}
    templates[".gitignore"] = "web/gitignore.j2"
    return Contents(
        templates=templates,
        values=values,
        copies={"public/model.tflite": interface.model},
        data={"public/golden.bin": interface.golden_bytes},
    )


APP = App(
    name="web",
    summary="a Vite and TypeScript page with LiteRT.js",
    is_built=True,
    refuses=_refuses,
    contents=_contents,
)
