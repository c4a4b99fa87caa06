"""Where TensorFlow Lite Micro and LiteRT's reference kernels round alike, and where they do not."""

from __future__ import annotations

from edgesdk_tflite.flatbuffer import FileTensor, ModelFile

ROUNDS_TWICE = "FULLY_CONNECTED"
REASON = (
    "TensorFlow Lite Micro rounds a fully connected layer's sum twice (to 31 bits, then to the "
    "output's), LiteRT once"
)
# LiteRT 2.3.0: 0 dB against PyTorch, where its XNNPACK and TensorFlow Lite Micro keep 41 dB.
_WRONG_REFERENCE = "SUM"
_MOVES = frozenset({"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE"})


def reference_is_wrong(file: ModelFile) -> str:
    """Return why LiteRT's reference kernels cannot be asked about a file; empty where they can."""
    sums = [op for op in file.operators if op.name == _WRONG_REFERENCE]
    if any(op.outputs[0].dtype == "int8" for op in sums):
        return f"LiteRT's reference kernel of {_WRONG_REFERENCE} is wrong in int8"
    return ""


def most_units_apart(file: ModelFile) -> int | None:
    """Return by how many units of an int8 output the two runtimes may differ.

    0 without fully connected layers in int8: every other kernel computes alike, bit for bit, in
    float as well. 1 where nothing computes with what such a layer gives, None where something does.
    A sum is scaled by ``m * 2 ** (s - 31)``: rounded once it is off by half a unit, rounded to an
    integer product first by half a unit and a little, so the two are neighbours at most.
    """
    layers = [
        op for op in file.operators if op.name == ROUNDS_TWICE and op.outputs[0].dtype == "int8"
    ]
    if not layers:
        return 0
    return 1 if all(_only_moves(file, tensor) for op in layers for tensor in op.outputs) else None


def _only_moves(file: ModelFile, tensor: FileTensor) -> bool:
    """Return whether nothing computes with a tensor between here and the file's outputs."""
    return all(
        op.name in _MOVES and all(_only_moves(file, output) for output in op.outputs)
        for op in file.consumers(tensor)
    )
