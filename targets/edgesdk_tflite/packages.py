"""The distributions this target needs, and the versions it was proven with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgesdk.target import Toolchain, installed_version, require

NAME = "tflite"

_CONVERTER = (
    ("litert-torch", "0.10.0", "converts PyTorch to .tflite"),
    ("litert-converter", "0.5.0", "the compiler behind litert-torch"),
    ("ai-edge-quantizer", "0.10.0", "quantizes .tflite files"),
    ("ai-edge-litert", "2.3.0", "runs .tflite files here"),
)
# A pre-release, and heavy for people without a microcontroller: an extra of its own.
_MICRO = (
    ("tflite-micro", "0.dev20261023182759", "runs .tflite files here as a microcontroller does"),
)
VELA = "ethos-u-vela"
_ARM = ((VELA, "5.2.0", "compiles .tflite files for the Ethos-U"),)


def converter_toolchain() -> Toolchain:
    """Return the state of what every emission needs: converter, quantizer and LiteRT."""
    return Toolchain.of(NAME, _CONVERTER, "pip install 'edgesdk[tflite]'")


def micro_toolchain() -> Toolchain:
    """Return the state of what running a microcontroller's file here needs besides."""
    return Toolchain.of(NAME, _MICRO, "pip install 'edgesdk[micro]'")


def vela_toolchain() -> Toolchain:
    """Return the state of what files for an Ethos-U need besides."""
    return Toolchain.of(NAME, _ARM, "pip install 'edgesdk[arm]'")


def whole_toolchain() -> Toolchain:
    """Return all of it, what only microcontrollers need being optional."""
    converter = converter_toolchain()
    optional = [
        replace(package, optional=True, install=extra.install)
        for extra in (micro_toolchain(), vela_toolchain())
        for package in extra.packages
    ]
    return replace(converter, packages=(*converter.packages, *optional))


def require_converter() -> None:
    """Raise ``TargetUnavailable`` with the install command unless emission can work here."""
    require(converter_toolchain())


def require_micro() -> None:
    """Raise ``TargetUnavailable`` with the install command unless tflite-micro is here."""
    require(micro_toolchain())


def require_vela() -> None:
    """Raise ``TargetUnavailable`` with the install command unless Vela is here."""
    require(vela_toolchain())


def tool_versions() -> Mapping[str, str]:
    """Return the installed versions of what shapes the emitted file."""
    names = ("torch", *(name for name, _, _ in _CONVERTER))
    return {name: installed_version(name) or "missing" for name in names}
