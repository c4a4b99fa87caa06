"""The kernels of many measured networks as flat arrays: their seconds and gradients at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgesdk.cost.features import Floats, KernelTable
from edgesdk.cost.log_coefficients import CLASSES, INFERENCE_AT, LENGTH, WEIGHT_AT


@dataclass(frozen=True, kw_only=True)
class Batch:
    """O networks with K different kernels in all; kernels that a network repeats are counted.

    ``owner`` says whose a kernel is, ``[K]``, in ascending order; ``work`` holds MACs, bytes of
    activations, bytes of weights and dispatches, ``[4, K]``, zero where a class costs nothing;
    ``count`` says how often a network has the kernel.
    """

    networks: int
    owner: NDArray[np.int64]
    classes: NDArray[np.int64]
    work: Floats
    count: Floats

    @classmethod
    def of(cls, tables: Sequence[KernelTable], priced: Sequence[NDArray[np.bool_]]) -> Batch:
        """Return the networks' kernels; ``priced`` says which classes cost anything, for each."""
        known: dict[tuple[int, bytes], Floats] = {}
        kernels = []
        for table, mask in zip(tables, priced, strict=True):
            key = (id(table), mask.tobytes())
            if key not in known:
                known[key] = _distinct(table, mask)
            kernels.append(known[key])
        found = np.vstack(kernels)
        return cls(
            networks=len(tables),
            owner=np.repeat(np.arange(len(tables)), [len(rows) for rows in kernels]),
            classes=found[:, 0].astype(np.int64),
            work=np.ascontiguousarray(found[:, 1:5].T),
            count=found[:, 5],
        )

    def seconds(self, logs: Floats) -> tuple[Floats, Floats]:
        """Return each network's seconds ``[O]`` and d log(seconds) / d logs, ``[O, LENGTH]``.

        ``logs`` are the log-coefficients of each network's setting, ``[O, LENGTH]``.
        """
        rates = np.exp(logs)
        macs, moved, weights, dispatches = self.work
        at = (self.owner, self.classes)
        compute = rates[:, :CLASSES][at] * macs
        memory = rates[:, CLASSES : 2 * CLASSES][at] * moved
        streamed = rates[self.owner, WEIGHT_AT] * weights
        slowest = np.maximum(np.maximum(compute, memory), streamed)
        computes = compute == slowest
        moves = ~computes & (memory == slowest)
        slowest = slowest * self.count
        overhead = rates[:, 2 * CLASSES : 3 * CLASSES][at] * dispatches * self.count
        total = self._sums(slowest + overhead) + rates[:, INFERENCE_AT]
        gradient = np.empty((self.networks, LENGTH))
        parts = (slowest * computes, slowest * moves, overhead)
        for kind, part in enumerate(parts):
            gradient[:, kind * CLASSES : (kind + 1) * CLASSES] = self._sums_by_class(part)
        gradient[:, WEIGHT_AT] = self._sums(slowest * ~(computes | moves))
        gradient[:, INFERENCE_AT] = rates[:, INFERENCE_AT]
        return total, gradient / total[:, None]

    def _sums(self, values: Floats) -> Floats:
        sums: Floats = np.bincount(self.owner, values, self.networks).astype(np.float64)
        return sums

    def _sums_by_class(self, values: Floats) -> Floats:
        cells = self.owner * CLASSES + self.classes
        sums: Floats = np.bincount(cells, values, self.networks * CLASSES).astype(np.float64)
        return sums.reshape(-1, CLASSES)


def _distinct(table: KernelTable, priced: NDArray[np.bool_]) -> Floats:
    """Return class, MACs, bytes, weights, dispatches and count of each different kernel."""
    classes = table.classes % CLASSES
    counted = priced[classes]
    rows = np.column_stack(
        [
            classes,
            counted * table.macs,
            counted * (table.read_bytes + table.written_bytes),
            table.weight_bytes,
            counted * table.dispatches,
        ]
    )
    different, counts = np.unique(rows, axis=0, return_counts=True)
    return np.column_stack([different, counts])
