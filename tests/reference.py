"""What several tests say of the guide's reference target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

REFERENCE_TARGET = Path(__file__).parents[1] / "examples" / "reference_target"
REFERENCE_DEVICE = REFERENCE_TARGET / "numpy_computer.toml"

Register = Callable[[str, str, Path], None]
"""Registers a target: its name, its entry point and the folder of its module."""
