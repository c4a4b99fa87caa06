"""A bound on what a ``.tflite`` file may claim to hold, checked before it is unpacked.

Entries of a flatbuffer may lead to one and the same place, so that a file of a megabyte can list
terabytes: 250,000 tensors that share a name of a megabyte. No converter writes that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# What no two entries share in a real file: an entry's offset, its table, what that points to.
_LEAST_ENTRY_BYTES = 24
_DEEPEST_RANK = 16
_SHARED = 4  # names and shapes that a converter wrote once and refers to several times


def check_extent(content: bytes) -> None:
    """Raise ``ValueError`` where the tables of a file claim many times what the file can hold."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    limit = _SHARED * len(content)
    claimed = 0
    for size in _claims(model):
        claimed += size
        if claimed > limit:
            raise ValueError(f"its tables claim more than {limit} bytes of {len(content)}")


def _claims(model: Any) -> Iterator[int]:
    """Yield the bytes that each part claims; what comes next is not looked at before."""
    lists = (
        model.OperatorCodesLength, model.BuffersLength, model.SignatureDefsLength,
        model.MetadataLength,
    )  # fmt: skip
    for length in lists:
        yield _LEAST_ENTRY_BYTES // 2 * length()
    for index in range(model.OperatorCodesLength()):
        yield len(model.OperatorCodes(index).CustomCode() or b"")
    for index in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(index)
        yield _LEAST_ENTRY_BYTES * (signature.InputsLength() + signature.OutputsLength())
        for entry in range(signature.InputsLength()):
            yield len(signature.Inputs(entry).Name() or b"")
        for entry in range(signature.OutputsLength()):
            yield len(signature.Outputs(entry).Name() or b"")
    for index in range(model.SubgraphsLength()):
        yield from _subgraph_claims(model.Subgraphs(index))


def _subgraph_claims(graph: Any) -> Iterator[int]:
    yield _LEAST_ENTRY_BYTES * (1 + graph.TensorsLength() + graph.OperatorsLength())
    yield 4 * (graph.InputsLength() + graph.OutputsLength()) + len(graph.Name() or b"")
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        if tensor.ShapeLength() > _DEEPEST_RANK:
            raise ValueError(f"a tensor has {tensor.ShapeLength()} dimensions")
        yield len(tensor.Name() or b"") + _LEAST_ENTRY_BYTES * tensor.VariantTensorsLength()
        scales = tensor.Quantization()
        if scales is not None:
            yield 4 * scales.ScaleLength() + 8 * scales.ZeroPointLength()
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        yield 4 * (operator.InputsLength() + operator.OutputsLength())
