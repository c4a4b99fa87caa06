"""Copies of a network that share the weights they do not change: a large one has them once."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def shared_copy(model: Model, own: Collection[str] = ()) -> Model:
    """Return a copy whose parameters are the model's, but for those of the layers named ``own``.

    ``own`` holds module paths and names of bare parameters: everything that will be changed in
    place. A parameter that is assigned anew is the copy's alone in any case; buffers are copied.
    """
    named = list(model.named_parameters(remove_duplicate=False))
    owned = {id(parameter) for name, parameter in named if _is_in(name, own)}
    shared = {id(parameter): parameter for _, parameter in named if id(parameter) not in owned}
    return copy.deepcopy(model, dict[int, object](shared))


def _is_in(parameter: str, names: Collection[str]) -> bool:
    """Return whether a parameter is one of the names or belongs to a module that is."""
    parts = parameter.split(".")
    return any(".".join(parts[:length]) in names for length in range(len(parts) + 1))
