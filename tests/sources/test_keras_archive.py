"""What a ``.keras`` file may hold, told before anything of it is loaded."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgesdk.errors import TaskError, UnsupportedModel
from edgesdk.sources import keras_archive
from edgesdk.sources.keras_archive import check_archive

WEIGHTS = "model.weights.h5"


def part(
    class_name: str, /, *, module: str | None = "keras.layers", **config: Any
) -> dict[str, Any]:
    return {"class_name": class_name, "module": module, "registered_name": None, "config": config}


def archive(
    folder: Path, *layers: dict[str, Any], members: dict[str, bytes] | None = None, **more: Any
) -> Path:
    """Write a file like Keras', with these layers in a sequential model."""
    config = {**part("Sequential", module="keras", name="net", layers=list(layers)), **more}
    path = folder / "net.keras"
    with zipfile.ZipFile(path, "w") as written:
        for name, content in {
            "config.json": json.dumps(config).encode(),
            "metadata.json": b"{}",
            WEIGHTS: b"\x89HDF",
            **(members or {}),
        }.items():
            written.writestr(name, content)
    return path


def test_layers_of_keras_own_pass(tmp_path: Path) -> None:
    kernel = part("GlorotUniform", module="keras.initializers", seed=None)
    policy = part("DTypePolicy", module="keras", name="float32")
    relu = {"class_name": "function", "module": "builtins", "config": "relu",
            "registered_name": "function"}  # fmt: skip
    check_archive(
        archive(
            tmp_path,
            part("Dense", name="head", kernel_initializer=kernel, dtype=policy, activation=relu),
            part("Add", module="keras.src.ops.numpy", name="sum"),
        )
    )


def test_how_it_was_trained_is_not_looked_at(tmp_path: Path) -> None:
    own = part("MyLoss", module="mine")
    check_archive(archive(tmp_path, compile_config={"loss": own}))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (part("Lambda", name="twice"), r"layer 'twice' \(Lambda\), which runs Python code"),
        (part("__lambda__", module="builtins"), "__lambda__, which runs Python code"),
        (part("TorchModuleWrapper", name="torch"), "unpickles"),
        (part("TFSMLayer", name="other"), "from a path"),
        (
            part("Mine", module="mine", name="own"),
            r"layer 'own' \(Mine\), a custom object \(mine\)",
        ),
        (
            {**part("Mine", module=None, name="own"), "registered_name": "pack>Mine"},
            r"layer 'own' \(Mine\), a custom object \(pack>Mine\)",
        ),
        (
            {"class_name": "function", "module": "os", "config": "system",
             "registered_name": "function"},
            r"system, a custom object \(os\)",
        ),
        (
            {"class_name": "function", "module": "keras.utils", "config": "get_file",
             "registered_name": "function"},
            r"get_file, a custom object \(keras.utils\)",
        ),
    ],
)  # fmt: skip
def test_what_runs_code_or_is_not_keras_own_is_named(
    tmp_path: Path, layer: dict[str, Any], said: str
) -> None:
    outer = part("Sequential", module="keras", name="outer", layers=[layer])
    with pytest.raises(TaskError, match=said) as raised:
        check_archive(archive(tmp_path, outer))
    assert "model.export('FOLDER')" in str(raised.value.next_step)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float16", "int8_from_float32"])
def test_half_precision_and_quantized_layers_are_refused(tmp_path: Path, policy: str) -> None:
    with pytest.raises(TaskError, match=f"layers of type {policy}") as raised:
        check_archive(archive(tmp_path, part("Dense", name="head", dtype=policy)))
    assert "float32" in str(raised.value.expected)


@pytest.mark.parametrize("name", ["../evil.py", "/etc/passwd", "assets/table.txt", "model.pkl"])
def test_members_that_keras_does_not_write_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match="not laid out as Keras does it"):
        check_archive(archive(tmp_path, members={name: b""}))


def test_a_missing_member_is_told(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("config.json", "{}")
    with pytest.raises(TaskError, match=r"it holds config\.json") as raised:
        check_archive(path)
    assert WEIGHTS in str(raised.value.expected)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"\x89HDF\r\n\x1a\n"])
def test_a_file_that_is_no_archive_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.keras"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=r"is not a \.keras file"):
        check_archive(path)


@pytest.mark.parametrize("config", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_configuration_that_is_none_is_told(tmp_path: Path, config: bytes) -> None:
    with pytest.raises(TaskError):
        check_archive(archive(tmp_path, members={"config.json": config}))


def test_weights_that_no_flatbuffer_can_hold_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras_archive, "LARGEST_BYTES", 4000)
    with pytest.raises(UnsupportedModel, match="holds 5000 bytes of weights"):
        check_archive(archive(tmp_path, members={WEIGHTS: bytes(5000)}))


def test_a_configuration_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras_archive, "_LARGEST_CONFIG_BYTES", 3)
    with pytest.raises(TaskError, match=r"holds config\.json of"):
        check_archive(archive(tmp_path))
