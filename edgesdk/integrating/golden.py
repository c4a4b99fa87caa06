"""The golden samples that an app carries, and how far its answers may be from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgesdk.artifact import GOLDEN, Manifest, TensorSpec
from edgesdk.errors import ArtifactError
from edgesdk.stages.sealing import read_golden
from edgesdk.verification import golden_sqnr_db

_MOST_INVOCATIONS = 16
_MOST_BYTES = 1 << 20

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Inputs and outputs ``[M, B, ...]`` in PyTorch's layout: M inferences at the file's batch.

    ``minimum_sqnr_db`` is what an app's answers must reach (``verification.golden_sqnr_db``) over
    a signal of ``signal``, the squared deviation of the outputs from their mean.
    """

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    minimum_sqnr_db: float

    @property
    def invocations(self) -> int:
        """How many inferences the self-test makes."""
        return len(self.inputs[0])

    def first(self, invocations: int) -> Golden:
        """Return no more than that many of them."""
        return Golden(
            inputs=tuple(array[:invocations] for array in self.inputs),
            outputs=tuple(array[:invocations] for array in self.outputs),
            minimum_sqnr_db=self.minimum_sqnr_db,
        )

    @property
    def signal(self) -> float:
        """What noise is compared with, as ``edgesdk.parity.sqnr_db`` has it."""
        flat = [o.astype(np.float64).reshape(-1, *o.shape[2:]) for o in self.outputs]
        varying = sum(float(np.square(o - o.mean(0, keepdims=True)).sum()) for o in flat)
        whole = sum(float(np.square(o).sum()) for o in flat)
        return max(varying if varying > 1e-12 * whole else whole, 1e-30)

    @property
    def maximum_noise(self) -> float:
        """The largest sum of squared differences that passes."""
        return self.signal / 10 ** (self.minimum_sqnr_db / 10)


def read_samples(folder: Path, manifest: Manifest) -> Golden:
    """Return up to 16 inferences' golden samples, at most 1 MiB of them but always one.

    Raises ``ArtifactError`` where they are not of the shapes that the manifest states.
    """
    inputs, outputs = read_golden(folder / GOLDEN)
    taken = _stacked(inputs, manifest.inputs, "input")
    given = _stacked(outputs, manifest.outputs, "output")
    if len({len(array) for array in (*taken, *given)}) != 1:
        raise ArtifactError(f"{GOLDEN} holds different numbers of inputs and outputs")
    bytes_each = sum(4 * array[0].size for array in (*taken, *given))
    most = max(1, min(_MOST_INVOCATIONS, _MOST_BYTES // bytes_each))
    golden = Golden(inputs=taken, outputs=given, minimum_sqnr_db=golden_sqnr_db(manifest))
    return golden.first(most)


def _stacked(
    tensors: Sequence[Tensor], specs: Sequence[TensorSpec], kind: str
) -> tuple[Array, ...]:
    if len(tensors) != len(specs):
        raise ArtifactError(f"{GOLDEN} holds {len(tensors)} {kind}s, the manifest {len(specs)}")
    stacked = []
    for tensor, spec in zip(tensors, specs, strict=True):
        shape = [spec.shape[spec.from_torch.index(axis)] for axis in range(len(spec.shape))]
        array = tensor.numpy()
        if list(array.shape[1:]) != shape[1:] or not len(array) or not np.isfinite(array).all():
            raise ArtifactError(
                f"{GOLDEN} holds {kind} {spec.name!r} with shape {list(array.shape)}",
                expected=f"finite values [N, {', '.join(map(str, shape[1:]))}]",
            )
        # The last batch is filled up with its own final sample, as compile filled it.
        missing = -len(array) % shape[0]
        array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        stacked.append(array.reshape(-1, *shape))
    return tuple(stacked)
