"""A network that nothing here can round or change: what its emitted files tell instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Self

from torch import Tensor, nn

from edgesdk.errors import UnsupportedModel
from edgesdk.foreign import Foreign
from edgesdk.running.adapter import artifact_predict
from edgesdk.scheme import Scheme
from edgesdk.stages.compression import compressed_model
from edgesdk.stages.emission import Emitted, emit
from edgesdk.stages.proof import start
from edgesdk.stages.request import Request
from edgesdk.task import Predict, Tensors


class OnRuntime(nn.Module):
    """An emitted file as a module, run by a process that is somebody else's to end."""

    def __init__(self, predict: Predict) -> None:
        super().__init__()
        self._predict = predict

    def forward(self, *inputs: Tensor) -> Tensor | Tensors:
        """Return the file's outputs for inputs ``[N, ...]``."""
        return self._predict(*inputs)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        """Return itself: a file does not change."""
        return self


@contextmanager
def foreign_files(request: Request) -> Iterator[Callable[[Scheme], nn.Module] | None]:
    """Return what gives the original in a scheme as its emitted file computes it, while the block
    runs; None where the network's layers can be rounded here."""
    if not isinstance(request.task.model, Foreign):
        yield None
        return
    with ExitStack() as stack:

        def in_scheme(scheme: Scheme) -> nn.Module:
            emitted = _emitted(request, scheme)
            process = stack.enter_context(start(request, emitted.folder, emitted.emission))
            return OnRuntime(artifact_predict(process))

        yield in_scheme


def keep_emittable(request: Request) -> Request:
    """Return the request without the schemes that a foreign network cannot be emitted in.

    Its operators are known only once it is converted; other networks are asked before. Raises
    ``UnsupportedModel`` where no scheme is left.
    """
    if not isinstance(request.task.model, Foreign):
        return request
    refused: dict[Scheme, str] = {}
    for scheme in request.schemes:
        try:
            _emitted(request, scheme)
        except UnsupportedModel as problem:
            if len(request.schemes) == 1:
                raise
            refused[scheme] = problem.found
    left = tuple(scheme for scheme in request.schemes if scheme not in refused)
    if not left:
        raise UnsupportedModel(
            "; ".join(f"{scheme}: {reason}" for scheme, reason in refused.items()),
            expected="a scheme that the network can be converted in",
        )
    return replace(request, schemes=left, refused={**request.refused, **refused})


def _emitted(request: Request, scheme: Scheme) -> Emitted:
    return emit(request, compressed_model(request, request.task.model, scheme), "original")
