"""Where TensorFlow Lite Micro and LiteRT's reference kernels round alike, and where they do not."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk_tflite.flatbuffer import FileOperator, FileTensor, ModelFile

# Which operators the two round differently, by the type they give, and how.
_DIFFERENT: Mapping[tuple[str, str], str] = {
    ("FULLY_CONNECTED", "int8"): "TensorFlow Lite Micro rounds a fully connected layer's sum twice "
    "(to 31 bits, then to the output's), LiteRT once",
    ("FULLY_CONNECTED", "int16"): "TensorFlow Lite Micro scales a fully connected layer's sum by "
    "15 bits of the factor, LiteRT by 31",
    ("MUL", "int16"): "LiteRT rounds some products down that lie just above the half of a unit",
}
# LiteRT 2.3.0: 0 dB against PyTorch, where TensorFlow Lite Micro keeps 41 dB in int8, 53 in int16.
_WRONG_REFERENCE = ("SUM", ("int8", "int16"))
_MOVES = frozenset({"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE"})


def reference_is_wrong(file: ModelFile) -> str:
    """Return why LiteRT's reference kernels cannot be asked about a file; empty where they can."""
    name, dtypes = _WRONG_REFERENCE
    for op in file.operators:
        if op.name == name and op.outputs[0].dtype in dtypes:
            return f"LiteRT's reference kernel of {name} is wrong in {op.outputs[0].dtype}"
    return ""


def why_apart(file: ModelFile) -> str:
    """Return why the two may differ on a file; empty where they compute alike."""
    return "; ".join(dict.fromkeys(_DIFFERENT[_form(op)] for op in _different(file)))


def most_units_apart(file: ModelFile) -> int | None:
    """Return by how many units of an integer output the two runtimes may differ.

    0 without fully connected layers in integers, and products in int16: every other kernel computes
    alike, bit for bit, in float as well. 1 where nothing computes with what such an operator gives,
    None where something does. A sum is scaled by ``m * 2 ** (s - 31)``: rounded once it is off by
    half a unit, rounded to an integer product first by half a unit and a little, so the two are
    neighbours at most. In int16 ``m`` has 31 bits or 15 of them: what is not clipped has at most
    2 ** 15 units, of which a factor that is off by 2 ** -15 moves less than one.
    """
    operators = _different(file)
    if not operators:
        return 0
    alone = all(_only_moves(file, tensor) for op in operators for tensor in op.outputs)
    return 1 if alone else None


def _different(file: ModelFile) -> list[FileOperator]:
    return [op for op in file.operators if _form(op) in _DIFFERENT]


def _form(op: FileOperator) -> tuple[str, str]:
    return op.name, op.outputs[0].dtype


def _only_moves(file: ModelFile, tensor: FileTensor) -> bool:
    """Return whether nothing computes with a tensor between here and the file's outputs."""
    return all(
        op.name in _MOVES and all(_only_moves(file, output) for output in op.outputs)
        for op in file.consumers(tensor)
    )
