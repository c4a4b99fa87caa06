"""Elementwise MIL operations in PyTorch: activations, arithmetic and comparisons.

Where PyTorch computes the same, the table names its function; the others are spelled out.
Source: ``activation``, ``elementwise_unary`` and ``elementwise_binary`` in
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor

Operand = Tensor | float | int | bool | list[int]

DTYPES: Mapping[str, torch.dtype] = {
    "fp16": torch.float16, "fp32": torch.float32, "int32": torch.int32, "int16": torch.int16,
    "int8": torch.int8, "uint8": torch.uint8, "bool": torch.bool,
    "uint16": torch.int32,  # for indices; torch can hardly compute with its own uint16
}  # fmt: skip
_LARGEST_UINT16 = 2**16 - 1


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def compute(x: Tensor) -> Tensor:
        return function(x)

    return compute


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def compute(x: Operand, y: Operand) -> Tensor:
        return function(torch.as_tensor(x), torch.as_tensor(y))

    return compute


def leaky_relu(x: Tensor, alpha: float = 0.01) -> Tensor:
    """``x if x >= 0 else alpha * x``."""
    return F.leaky_relu(x, alpha)


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """``x if x >= 0 else alpha[c] * x``, a slope for each channel of [N, C, ...]."""
    return F.prelu(x, alpha)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """``x if x >= 0 else alpha * (exp(x) - 1)``."""
    return F.elu(x, alpha)


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """``min(max(x, alpha), beta)``."""
    return x.clamp(alpha, beta)


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """``x * Phi(x)``, exactly or nearly (Hendrycks and Gimpel 2016, section 2)."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def sigmoid_hard(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """``min(max(alpha * x + beta, 0), 1)``."""
    return (alpha * x + beta).clamp(0, 1)


def thresholded_relu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """``x if x >= alpha else 0``."""
    return torch.where(x >= alpha, x, 0.0)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """``exp(x) / sum(exp(x))`` along ``axis``."""
    return torch.softmax(x, axis)


def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """``ln(x + epsilon)``."""
    return torch.log(x + epsilon)


def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """``1 / sqrt(x + epsilon)``."""
    return torch.rsqrt(x + epsilon)


def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """``1 / (x + epsilon)``."""
    return 1 / (x + epsilon)


def select(cond: Operand, a: Operand, b: Operand) -> Tensor:
    """``a where cond, else b``."""
    return torch.where(torch.as_tensor(cond), torch.as_tensor(a), torch.as_tensor(b))


def cast(x: Tensor, dtype: str) -> Tensor:
    """``x`` in another element type."""
    if dtype == "uint16" and bool(((x < 0) | (x > _LARGEST_UINT16)).any()):
        raise ValueError("a value does not fit into uint16")
    return x.to(DTYPES[dtype])


ELEMENTWISE: Mapping[str, Callable[..., Tensor]] = {
    "abs": _unary(torch.abs),
    "add": _binary(torch.add),
    "cast": cast,
    "clip": clip,
    "cos": _unary(torch.cos),
    "elu": elu,
    "erf": _unary(torch.erf),
    "equal": _binary(torch.eq),
    "exp": _unary(torch.exp),
    "gelu": gelu,
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "inverse": inverse,
    "leaky_relu": leaky_relu,
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "log": log,
    "logical_and": _binary(torch.logical_and),
    "logical_not": _unary(torch.logical_not),
    "logical_or": _binary(torch.logical_or),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mul": _binary(torch.mul),
    "not_equal": _binary(torch.ne),
    "pow": _binary(torch.pow),
    "prelu": prelu,
    "real_div": _binary(torch.true_divide),
    "relu": _unary(F.relu),
    "relu6": _unary(F.relu6),
    "rsqrt": rsqrt,
    "select": select,
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": sigmoid_hard,
    "silu": _unary(F.silu),
    "sin": _unary(torch.sin),
    "softmax": softmax,
    "softplus": _unary(F.softplus),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "sub": _binary(torch.sub),
    "tanh": _unary(torch.tanh),
    "thresholded_relu": thresholded_relu,
}
