"""Training shared by several processes: each computes a part of every batch."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edgesdk.task import Batch


class Shared:
    """A student that several processes train, each on its part of every batch.

    All of them see the same batches, since all seed alike. Gradients are averaged by torch's
    ``DistributedDataParallel``; batch norms see each process's part of a batch and keep the
    statistics of the first one's, as they do there.
    """

    def __init__(self, student: nn.Module, group: dist.ProcessGroup) -> None:
        self.student = DistributedDataParallel(
            student, process_group=group, find_unused_parameters=True
        )
        self._group = group
        self._rank = dist.get_rank(group)
        self._count = dist.get_world_size(group)

    def part_of(self, batch: Batch) -> tuple[Batch, float]:
        """Return this process's part, and what its loss counts in the mean over the processes.

        A batch with fewer samples than processes is computed whole by each.
        """
        samples = len(batch.inputs[0])
        if samples < self._count:
            return batch, 1.0

        def part(tensor: Tensor) -> Tensor:
            return tensor.tensor_split(self._count)[self._rank]

        targets = None if batch.targets is None else part(batch.targets)
        mine = Batch(inputs=tuple(part(tensor) for tensor in batch.inputs), targets=targets)
        return mine, len(mine.inputs[0]) * self._count / samples

    def mean(self, loss: Tensor) -> float:
        """Return the mean of all processes' losses."""
        total = loss.detach().clone()
        dist.all_reduce(total, group=self._group)
        return total.item() / self._count
