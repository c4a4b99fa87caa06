"""edgesdk: compile a trained PyTorch network for a device, under a budget, with proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesdk.budget import Budget, Relative
    from edgesdk.pipeline import compile_task as compile
    from edgesdk.pipeline import plan_task as make_plan
    from edgesdk.result import CompileResult
    from edgesdk.sources.keras import keras_model
    from edgesdk.task import Batch, InputSpec, Metric, OutputSpec, Task

__all__ = [
    "Batch",
    "Budget",
    "CompileResult",
    "InputSpec",
    "Metric",
    "OutputSpec",
    "Relative",
    "Task",
    "compile",
    "keras_model",
    "make_plan",
]

_HOMES = {
    "Batch": ("edgesdk.task", "Batch"),
    "Budget": ("edgesdk.budget", "Budget"),
    "CompileResult": ("edgesdk.result", "CompileResult"),
    "InputSpec": ("edgesdk.task", "InputSpec"),
    "Metric": ("edgesdk.task", "Metric"),
    "OutputSpec": ("edgesdk.task", "OutputSpec"),
    "Relative": ("edgesdk.budget", "Relative"),
    "Task": ("edgesdk.task", "Task"),
    "compile": ("edgesdk.pipeline", "compile_task"),
    "keras_model": ("edgesdk.sources.keras", "keras_model"),
    "make_plan": ("edgesdk.pipeline", "plan_task"),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: torch takes seconds, and ``--help`` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgesdk' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
