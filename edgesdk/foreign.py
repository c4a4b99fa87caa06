"""A network that another framework computes: called like a module, but nothing sees inside."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from torch import nn

from edgesdk.cost.fusion import WEIGHTED
from edgesdk.errors import UsageError
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import Scheme
from edgesdk.target import GraphReader, find_target
from edgesdk.task import Tensors


class Foreign(nn.Module):
    """A trained network with a converter of its own, which gives a float file of one target.

    Its inputs and outputs are laid out as its own framework has them, and so they are in the file.
    It cannot be traced, pruned or trained here; what it computes is read from the float file.

    - ``title``: what to call it, as in "a Keras model".
    - ``framework``: what runs it.
    - ``target``: the only target that its converter writes files for.
    - ``refused``: schemes it cannot have, each with the reason.
    - ``tool_versions``: what converted and ran it.
    """

    title: str
    framework: str
    target: str
    refused: Mapping[Scheme, str] = {}
    tool_versions: Mapping[str, str]

    def float_file(self, example_inputs: Tensors) -> bytes:
        """Return the float file for inputs of these shapes, tensors named by the converter.

        Its signature calls inputs ``args_0``, ``args_1``, ... and outputs ``output_0``, ....
        """
        raise NotImplementedError

    def layer_of(self, tensor: str) -> str:
        """Return the layer that computes a tensor of the float file; empty where none is known."""
        raise NotImplementedError

    @property
    def unpruned(self) -> str:
        """Why it keeps its shape, and what would change that."""
        return f"{self.title} is not pruned here; convert it to PyTorch to have it pruned"

    def graph(self, example_inputs: Tensors, name: str) -> OpGraph:
        """Return what the float file computes, its operators under the network's own layers."""
        reader = find_target(self.target)
        if not isinstance(reader, GraphReader):
            raise UsageError(f"target {self.target!r} reads no files, and {self.title} needs that")
        with tempfile.TemporaryDirectory(prefix="edgesdk.") as folder:
            path = Path(folder) / f"model{reader.suffix}"
            path.write_bytes(self.float_file(example_inputs))
            read = reader.read_graph(path)
        ops = tuple(replace(op, layer=self._layer(op)) for op in read.ops)
        return replace(read, model=name, ops=ops)

    def _layer(self, op: Op) -> str:
        """Return the layer of an operator: its kernel's, whose name no fused activation takes."""
        names = (*(op.parameters if op.kind in WEIGHTED else ()), *op.outputs)
        return next((layer for name in names if (layer := self.layer_of(name))), "")

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        """Return itself: nothing changes it, and there is one process that runs it."""
        return self
