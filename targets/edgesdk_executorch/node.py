"""One operator of a ``.pte``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgesdk.scheme import Scheme

_SCHEMES: Mapping[tuple[str, str], Scheme] = {
    ("float32", "float32"): "fp32",
    ("float16", "float16"): "fp16",
    ("int8", "int8"): "int8",
    ("dynamic int8->float32", "int8"): "int8_dynamic",
    ("dynamic int8->float32", "int4"): "int4_dynamic",
    ("float16", "int8"): "w8",
}


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator of the file.

    ``name`` is unique in the file, behind the number of its instruction. ``dtype`` is what it
    computes in ("int8", "float32"), or ``from->to`` where it converts. ``where`` is a delegate's
    ``executor`` ("xnnpack"), or "portable" for ExecuTorch's own kernels. ``weight_dtype`` and
    ``weight_shape`` describe the filter of a convolution or linear layer, None for all others.
    ``constants`` maps each constant it reads to its bytes. ``reads`` names the nodes of the same
    delegate whose results it takes, "" standing for an input of the delegate. ``handle`` leads back
    to the exported graph, where there is one.
    """

    name: str
    op: str
    dtype: str
    where: str
    constants: Mapping[str, int]
    reads: tuple[str, ...] = ()
    weight_dtype: str | None = None
    weight_shape: tuple[int, ...] | None = None
    handle: str | None = None

    @property
    def instruction(self) -> int:
        """The position of the program's instruction that the operator is, or is in."""
        return int(self.name.partition(".")[0])

    @property
    def precision(self) -> str:
        """What the operator computes in, and its weights' type where that is another one."""
        if self.weight_dtype in (None, self.dtype):
            return self.dtype
        return f"{self.dtype}, {self.weight_dtype} weights"

    @property
    def scheme(self) -> str:
        """The scheme that weights and arithmetic together are, ``precision`` where it is none."""
        return _SCHEMES.get((self.dtype, self.weight_dtype or ""), self.precision)
