"""ExecuTorch: PyTorch's own runtime for phones and boards; emits ``model.pte`` for a delegate."""

from edgesdk_executorch.target import TARGET

__all__ = ["TARGET"]
