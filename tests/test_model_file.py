from pathlib import Path

import pytest

from edgesdk.errors import ArtifactError, UsageError
from edgesdk.graph import Op, OpGraph, TensorInfo, TensorRole
from edgesdk.model_file import FORMATS, is_model_file, read_graph, scheme_of


@pytest.mark.parametrize("name", ["a.tflite", "b.PTE", "folder/c.mlpackage", "d.onnx", "e.mlmodel"])
def test_a_model_file_goes_by_its_ending(name: str) -> None:
    assert is_model_file(name)


@pytest.mark.parametrize("name", ["task.py:digits", "demo:digits", "package.module:net", "model"])
def test_a_task_is_no_model_file(name: str) -> None:
    assert not is_model_file(name)


def test_a_format_that_nobody_reads_says_which_are_read(tmp_path: Path) -> None:
    for ending in (".pte", ".bin", ""):
        path = tmp_path / f"model{ending}"
        path.write_bytes(b"anything")
        with pytest.raises(UsageError, match=r"no target reads .* files\. Expected: .*\.tflite"):
            read_graph(path)
    assert ".pte" in FORMATS


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model\.tflite is not a file"):
        read_graph(tmp_path / "model.tflite")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x00" * 64, b"\x1c\x00\x00\x00TFL3" * 9])
def test_a_damaged_file_is_an_artifact_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        read_graph(path)


def linear_layers(*dtypes: str) -> OpGraph:
    """Linear layers one after the other, with weights of those types."""
    tensors: dict[str, TensorInfo] = {}
    ops = []

    def tensor(name: str, role: TensorRole, dtype: str = "float32") -> str:
        tensors[name] = TensorInfo(name=name, shape=(8, 8), dtype=dtype, role=role)
        return name

    last = tensor("x", "input")
    for index, dtype in enumerate(dtypes):
        weight = tensor(f"weight{index}", "parameter", dtype)
        output = tensor(f"layer{index}", "activation")
        ops.append(
            Op(
                name=output, kind="linear", inputs=(last,), parameters=(weight,),
                outputs=(output,), macs=512, layer="", attributes={},
            )
        )  # fmt: skip
        last = output
    return OpGraph(model="layers", ops=tuple(ops), tensors=tensors)


@pytest.mark.parametrize(
    ("dtypes", "scheme"),
    [
        (("float32", "float32"), "fp32"),
        (("int8", "int8", "float32"), "int8"),
        (("int4", "uint8"), "int8"),
        (("int8", "float32"), "fp32"),
        (("float16", "float16", "float32"), "fp16"),
        ((), "fp32"),
    ],
)
def test_the_scheme_is_that_of_most_kernels(dtypes: tuple[str, ...], scheme: str) -> None:
    assert scheme_of(linear_layers(*dtypes)) == scheme
