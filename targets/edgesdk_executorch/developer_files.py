"""What ExecuTorch's own tools read beside the program: an ETRecord and a bundled program.

Neither is for the device. ``model.etrecord`` names the layers behind an ETDump's events in
``executorch.devtools.Inspector``; ``model.bpte`` is the program with inputs and expected outputs,
which ExecuTorch's runners execute and compare.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from edgesdk.artifact import inside
from edgesdk.target import Emission
from edgesdk.task import Tensors

RECORD = "model.etrecord"
BUNDLE = "model.bpte"
BUNDLED_AT_MOST = 8
"""Inferences in a bundled program: each is stored whole, beside the program itself."""

_METHOD = "forward"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can state


def write_record(record: Any, path: Path) -> None:
    """Write an ETRecord that holds the graph with its layers and nothing else.

    Left out are the weights and example inputs (tensors of their shapes take the place), which it
    would hold twice, the lines of source that each node came from, which name folders, and the
    nodes of earlier graphs, whose numbers a process draws. Equal graphs give equal bytes.
    """
    record.exported_program = record.export_graph_id = None
    program = record.edge_dialect_program
    for node in program.graph.nodes:
        for key in ("stack_trace", "from_node"):
            node.meta.pop(key, None)
    program._state_dict = {name: _hollow(value) for name, value in program.state_dict.items()}
    program._constants = {name: _hollow(value) for name, value in program.constants.items()}
    arguments, keywords = program.example_inputs
    program._example_inputs = (tuple(map(_hollow, arguments)), keywords)
    buffer = io.BytesIO()
    record.save(buffer)
    with zipfile.ZipFile(buffer) as written, zipfile.ZipFile(path, "w") as archive:
        for name in written.namelist():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, written.read(name))


def write_bundle(folder: Path, emission: Emission, inputs: Tensors, outputs: Tensors) -> str:
    """Write the program with the first samples' inputs and expected outputs; return its name.

    ``inputs`` and ``outputs`` are ``[N, ...]`` in PyTorch's layout, at most ``BUNDLED_AT_MOST``
    batches of them are bundled; the last batch is filled up from the beginning.
    """
    from executorch.devtools import BundledProgram
    from executorch.devtools.bundled_program.config import MethodTestCase, MethodTestSuite
    from executorch.devtools.bundled_program.serialize import (
        serialize_from_bundled_program_to_flatbuffer,
    )

    batch, count = emission.inputs[0].shape[0], len(inputs[0])
    starts = range(0, count, batch)[:BUNDLED_AT_MOST]
    cases = []
    for start in starts:
        rows = torch.arange(start, start + batch) % count
        given = [
            _typed(t[rows], spec.dtype) for t, spec in zip(inputs, emission.inputs, strict=True)
        ]
        wanted = [
            _typed(t[rows], spec.dtype) for t, spec in zip(outputs, emission.outputs, strict=True)
        ]
        cases.append(MethodTestCase(inputs=given, expected_outputs=wanted))
    suite = MethodTestSuite(method_name=_METHOD, test_cases=cases)
    program = BundledProgram(None, [suite], pte_file_path=str(inside(folder, emission.files[0])))
    (folder / BUNDLE).write_bytes(serialize_from_bundled_program_to_flatbuffer(program))
    return BUNDLE


def _hollow(value: Any) -> Any:
    """Return a tensor of the same shape and type that takes a few bytes in a file."""
    if not isinstance(value, torch.Tensor):
        return value
    hollow = value.new_zeros(()).expand(value.shape)
    return torch.nn.Parameter(hollow, False) if isinstance(value, torch.nn.Parameter) else hollow


def _typed(tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    return tensor.to(getattr(torch, dtype)).contiguous()
