"""Runtimes that run inside this process: LiteRT and ExecuTorch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .operators import leaf_events


class LiteRT:
    """A ``.tflite`` file on LiteRT's CPU kernels (XNNPACK)."""

    name, wheel = "litert", "ai-edge-litert"
    no_hooks = "LiteRT's Python interface gives no times of operators"

    def __init__(self, manifest: Any, folder: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        path = str(folder / manifest["files"][0])
        self._interpreter: Any = Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        self._inputs = [_index(inputs, spec, i) for i, spec in enumerate(manifest["inputs"])]
        self._outputs = [_index(outputs, spec, i) for i, spec in enumerate(manifest["outputs"])]
        self.threads = threads

    def bind(self, inputs: Sequence[Any]) -> Callable[[], object]:
        """Return the interpreter's own invocation, the inputs set."""
        for index, array in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Return copies of the outputs of one inference."""
        self.bind(inputs)()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _index(details: Sequence[Any], spec: Any, position: int) -> int:
    """Return the tensor of that name; where the names were not kept, the one in that place."""
    named = [item["index"] for item in details if item["name"] == spec["name"]]
    return int(named[0] if named else details[position]["index"])


class ExecuTorch:
    """A ``.pte`` file on ExecuTorch; with ``hooks`` every operator leaves an event in an ETDump."""

    name, wheel = "executorch", "executorch"
    no_hooks = ""

    def __init__(self, manifest: Any, folder: Path, threads: int, *, hooks: bool = False) -> None:
        import executorch.kernels.quantized  # noqa: F401 - registers the quantize kernels
        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(threads)
        self._torch = torch
        content = (folder / manifest["files"][0]).read_bytes()
        # The method reads from the program and the program from its bytes: all three have to live.
        if hooks:
            self._program = Runtime.get().load_program(content, enable_etdump=True)
        else:
            self._program = Runtime.get().load_program(content)
        self._method: Any = self._program.load_method("forward")
        self.threads = int(portable_lib._threadpool_get_thread_count())

    def bind(self, inputs: Sequence[Any]) -> Callable[[], Any]:
        """Return the method's execution on these inputs."""
        tensors = [self._torch.from_numpy(array).contiguous() for array in inputs]
        execute = self._method.execute
        return lambda: execute(tensors)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Return the outputs of one inference."""
        return [output.numpy() for output in self.bind(inputs)()]

    def write_dump(self, path: str) -> None:
        """Write the ETDump of all executions, if the wheel keeps one; only with hooks."""
        with tempfile.TemporaryDirectory() as folder:
            debug = os.path.join(folder, "debug.bin")
            self._program.write_etdump_result_to_file(path, debug)

    def events(self, skip: int) -> list[tuple[str, bool, list[float]]]:
        """Return each leaf operator: its name, whether a delegate ran it, its times in ms.

        The times of the first ``skip`` executions are left out. Call it once, at the end.
        """
        from executorch.devtools import Inspector

        with tempfile.TemporaryDirectory() as folder:
            dump = os.path.join(folder, "dump.etdp")
            self.write_dump(dump)
            if not os.path.exists(dump):
                return []
            blocks = Inspector(etdump_path=dump).event_blocks
        return [(name, told, times[skip:]) for name, told, times in leaf_events(blocks)]


SESSIONS = {kind.name: kind for kind in (LiteRT, ExecuTorch)}
