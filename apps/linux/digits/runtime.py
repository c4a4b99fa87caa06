"""LiteRT's interpreter, as this model needs it."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from .processing import Array

RUNTIME = "litert"


class Session:
    """A loaded file: set the inputs, invoke, read the outputs. `invoke` is what is timed."""

    def __init__(
        self, content: bytes, input_names: list[str], output_names: list[str], threads: int
    ) -> None:
        self._interpreter: Any = Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        inputs, outputs = self._indices()
        self._inputs = [inputs[name] for name in input_names]
        self._outputs = [outputs[name] for name in output_names]
        self.threads = threads
        self.version = metadata.version("ai-edge-litert")

    def _indices(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the tensors' indices by the names of the first signature, else by their own."""
        signatures = self._interpreter.get_signature_list()
        if signatures:
            runner = self._interpreter.get_signature_runner(next(iter(signatures)))
            found = (runner.get_input_details(), runner.get_output_details())
            given, taken = ({n: int(d["index"]) for n, d in side.items()} for side in found)
            return given, taken
        sides = (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        given, taken = ({d["name"]: int(d["index"]) for d in side} for side in sides)
        return given, taken

    def set_inputs(self, arrays: list[Array]) -> None:
        """Copy the arrays into the file's inputs."""
        for index, array in zip(self._inputs, arrays, strict=True):
            self._interpreter.set_tensor(index, array)

    def invoke(self) -> None:
        """Run one inference."""
        self._interpreter.invoke()

    def outputs(self) -> list[Array]:
        """Return copies of the last inference's outputs."""
        return [self._interpreter.get_tensor(index) for index in self._outputs]
