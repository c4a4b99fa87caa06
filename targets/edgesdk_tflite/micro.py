"""Run a ``.tflite`` file in TensorFlow Lite Micro, and read how much memory it takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgesdk.artifact import inside
from edgesdk.errors import ArtifactError, UnsupportedModel
from edgesdk.measurement import RuntimeIdentity
from edgesdk.target import Arrays, Emission, installed_version
from edgesdk_tflite.flatbuffer import ModelFile, read_model
from edgesdk_tflite.packages import require_micro
from edgesdk_tflite.quiet import captured_output
from edgesdk_tflite.session import host_platform

# Enough beside the tensors themselves for the runtime's structures, per file and per operator.
_ARENA_BASE_BYTES = 1 << 20
_ARENA_OPERATOR_BYTES = 1 << 14
_ARENA_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
_MISSING_OPERATOR = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_FAILED_NODE = re.compile(r"Node (\w+) \(number (\d+)\) failed to (?:prepare|invoke)")
_INSTEAD_OF_INT16 = "compile with int8, which more kernels have, or replace that operator"


class MicroSession:
    """A file loaded in TensorFlow Lite Micro's interpreter, in its build for this machine.

    The kernels are the reference ones and the memory planner is the device's. The arena differs
    from the device's: pointers in the runtime's structures take eight bytes here and four on a
    32-bit core, and optimised kernels (CMSIS-NN) ask for scratch buffers that the reference ones
    do without. ``identity.platform`` says which build it was.
    """

    def __init__(self, folder: Path, emission: Emission) -> None:
        require_micro()
        from tflite_micro.python.tflite_micro import runtime

        path = inside(folder, emission.opened)
        file = read_model(path)
        positions = [file.input_order.index(file.input(s.name).index) for s in emission.inputs]
        self._input_positions = positions
        self._output_positions = [
            file.output_order.index(file.output(spec.name).index) for spec in emission.outputs
        ]
        with captured_output() as output:
            problem = self._load(runtime, path, _arena_bytes(file)) or self._try_kernels(emission)
        if problem is not None:
            raise _refusal(problem, output.text, file, emission)
        self.identity = RuntimeIdentity(
            runtime="tflite-micro",
            version=str(installed_version("tflite-micro")),
            platform=f"{host_platform()}, reference kernels",
            unit="cpu",
            threads=1,
        )
        self._memory_bytes = self._read_memory_bytes()

    def _load(self, runtime: Any, path: Path, arena_bytes: int) -> RuntimeError | None:
        try:
            self._interpreter: Any = runtime.Interpreter.from_file(
                str(path), arena_size=arena_bytes
            )
        except RuntimeError as problem:
            return problem
        return None

    def _try_kernels(self, emission: Emission) -> RuntimeError | None:
        """Run once on zeros: some kernels find out that they lack a type only when they run."""
        try:
            self.bind([np.zeros(spec.shape, spec.dtype) for spec in emission.inputs])()
            self._interpreter.reset()  # what a network with a state remembers of it
        except RuntimeError as problem:
            return problem
        return None

    def run(self, inputs: Arrays) -> Arrays:
        """Return copies of the outputs of one inference at the file's batch."""
        self.bind(inputs)()
        # The interpreter hands out views of its arena, which the next inference overwrites.
        return [np.array(self._interpreter.get_output(p)) for p in self._output_positions]

    def bind(self, inputs: Arrays) -> Callable[[], object]:
        """Return the interpreter's own invocation, the inputs set once.

        The arena may reuse an input's place, so later invocations see other numbers there; they
        take the same time.
        """
        for position, array in zip(self._input_positions, inputs, strict=True):
            # The binding reads the array's memory from its start and ignores strides.
            self._interpreter.set_input(np.ascontiguousarray(array), position)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke

    def memory_bytes(self) -> int:
        """Return the smallest arena the file runs in, as the runtime recorded its allocations."""
        return self._memory_bytes

    def _read_memory_bytes(self) -> int:
        with captured_output() as output:
            self._interpreter.print_allocations()
        found = _ARENA_TOTAL.search(output.text)
        if found is None:
            raise ArtifactError("TensorFlow Lite Micro did not report its arena allocation")
        return int(found[1])


def _arena_bytes(file: ModelFile) -> int:
    """Return an arena that is surely large enough; what is used of it does not depend on it."""
    activations = {t.key: t for op in file.operators for t in op.activations}
    tensors = sum(8 * max(t.elements, 1) + 1024 for t in activations.values())
    weights = sum(
        len(t.data) for op in file.operators for t in op.inputs if t and t.data is not None
    )
    return _ARENA_BASE_BYTES + 2 * tensors + weights + _ARENA_OPERATOR_BYTES * len(file.operators)


def _refusal(
    problem: RuntimeError, said: str, file: ModelFile, emission: Emission
) -> UnsupportedModel | ArtifactError:
    """Return the error for a file that TensorFlow Lite Micro refused, naming operator and layer."""
    missing, failed = _MISSING_OPERATOR.search(said), _FAILED_NODE.search(said)
    if missing is not None:
        at = [op.outputs[0].name for op in file.operators if op.name == missing[1]]
        what = f"TensorFlow Lite Micro has no {missing[1]}"
    elif failed is not None:
        at = [file.operators[int(failed[2])].outputs[0].name]
        what = f"TensorFlow Lite Micro cannot run this {failed[1]}"
    else:
        reason = said.strip().replace("\n", " | ") or str(problem)
        return ArtifactError(f"TensorFlow Lite Micro cannot run {emission.opened}: {reason}")
    layers = sorted({emission.layer_of.get(tensor, tensor) for tensor in at})
    reason = "" if failed is None else f" ({said.strip().splitlines()[0]})"
    return UnsupportedModel(
        f"{what}, at layer {', '.join(layers) or 'unknown'}{reason}",
        expected="operators that TensorFlow Lite Micro has",
        next_step=_INSTEAD_OF_INT16
        if any(t.dtype == "int16" for op in file.operators for t in op.activations)
        else "replace that operator (GELU by ReLU, for instance), or choose a larger device",
        details={"layers": layers},
    )
