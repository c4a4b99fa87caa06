"""Whether two models name the same class, for outputs that hold class scores."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from edgesdk.compress.distil_loss import class_dimension
from edgesdk.task import OutputSpec, Tensors


def moved_samples(
    reference: Tensors, actual: Tensors, outputs: Sequence[OutputSpec]
) -> Tensor | None:
    """Return ``[N]`` booleans: the sample's largest class score is elsewhere, at any position.

    Looks at every output declared as logits or probabilities, along the dimension that holds its
    classes; None where no output has such a dimension (a single score names no class).
    """
    moved: Tensor | None = None
    for wanted, got, spec in zip(reference, actual, outputs, strict=True):
        dimension = class_dimension(spec, wanted, None)
        if dimension is None:
            continue
        differs = wanted.argmax(dimension) != got.argmax(dimension)
        differs = differs.reshape(len(differs), -1).any(-1)
        moved = differs if moved is None else moved | differs
    return moved
