"""A network as a file holds it: the format's own operators over numbered tensors.

What a runtime allocates and what a file weighs depend on these, not on the model's own operators:
a PAD in front of a strided convolution, a RESHAPE with the shape it reads as a constant.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class FormTensor:
    """A tensor: its elements, the bytes of each, dimensions, and how many scales it is stored with.

    ``layer`` is what its name begins with. ``is_constant``: its values are in the file.
    """

    elements: int
    element_bytes: float
    rank: int
    scales: int = 0
    is_constant: bool = False
    layer: str = ""

    @property
    def size_bytes(self) -> float:
        """The bytes of its values."""
        return self.elements * self.element_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class FormOp:
    """An operator by the format's name; ``inputs`` (constants included) and ``outputs`` number
    tensors."""

    operator: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(kw_only=True)
class FileForm:
    """Operators in execution order; ``inputs`` and ``outputs`` number the boundary's tensors."""

    tensors: list[FormTensor] = field(default_factory=list)
    ops: list[FormOp] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def add(self, tensor: FormTensor) -> int:
        """Add a tensor and return its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1
