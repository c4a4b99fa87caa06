"""What the ExecuTorch target needs, and what it can emit for a runtime."""

from __future__ import annotations

from dataclasses import replace

from edgesdk.device import Runtime
from edgesdk.layer_format import fallback_refusal
from edgesdk.scheme import Scheme
from edgesdk.target import Capability, Toolchain
from edgesdk_executorch import qnn
from edgesdk_executorch.delegates import DELEGATES, find_delegate

TARGET_NAME = "executorch"

_PACKAGES = (
    ("executorch", "1.5.1", "lowers the exported model to a .pte and runs it here"),
    ("torchao", "0.18.0", "calibrates and quantizes the exported model to int8"),
)
_COREML = (("coremltools", "9.0", "converts what the Core ML delegate takes"),)


def find_toolchain() -> Toolchain:
    """Return what is installed, and the command for the rest; Core ML's converter is optional."""
    chain = Toolchain.of(TARGET_NAME, _PACKAGES, "pip install 'edgesdk[executorch]'")
    extra = Toolchain.of(TARGET_NAME, _COREML, "pip install 'edgesdk[coreml]'")
    optional = [replace(p, optional=True, install=extra.install) for p in extra.packages]
    return replace(chain, packages=(*chain.packages, *optional))


def tool_versions(delegate: str) -> dict[str, str]:
    """Return the installed versions of what shapes a file for a delegate."""
    packages = find_toolchain().packages
    return {p.name: str(p.found) for p in packages if not p.optional or delegate == "coreml"}


def find_capability(runtime: Runtime) -> Capability:
    """Return the schemes a ``.pte`` for this runtime can have, and why not the others."""
    delegate = find_delegate(runtime.delegate)
    return Capability.of(
        lambda scheme: _refusal(scheme, runtime),
        mixes=delegate.mixes if delegate else {},
        unmixed=delegate.unmixed if delegate else "nothing is emitted for this delegate",
        quantizer="XNNPACK",
    )


def _refusal(scheme: Scheme, runtime: Runtime) -> str | None:
    if runtime.delegate == qnn.NAME:
        return qnn.refusal()
    delegate = find_delegate(runtime.delegate)
    if delegate is None:
        known = ", ".join(each.name for each in DELEGATES)
        return f"{known} are the delegates emitted for here, not {runtime.delegate!r}"
    reason = delegate.refusal(scheme, runtime)
    if reason is not None:
        return reason
    if scheme not in runtime.precisions:
        return f"the device profile lists no {scheme} for {runtime.runtime} on its {runtime.unit}"
    if scheme == "int8" and runtime.integer_io:
        return "int8 files take and return float here, and this runtime asks for int8 tensors"
    return fallback_refusal(scheme, runtime.precisions)
