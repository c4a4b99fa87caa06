"""The delegates there are, by what profiles and files call them."""

from __future__ import annotations

from edgesdk_executorch import coreml, vulkan, xnnpack
from edgesdk_executorch.delegate import Delegate

DELEGATES: tuple[Delegate, ...] = (xnnpack.DELEGATE, vulkan.DELEGATE, coreml.DELEGATE)


def find_delegate(name: str) -> Delegate | None:
    """Return the delegate that profiles call so, None where nothing is emitted for it."""
    return next((delegate for delegate in DELEGATES if delegate.name == name), None)


def delegate_of(backend_id: str) -> Delegate | None:
    """Return the delegate that a ``.pte`` calls so, None for one that is not read here."""
    return next((delegate for delegate in DELEGATES if delegate.backend_id == backend_id), None)
