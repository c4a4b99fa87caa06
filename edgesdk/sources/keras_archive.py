"""A ``.keras`` file, looked through before Keras reads it: its members, sizes and classes.

It is a zip of a configuration, which names classes and functions to be built by import, and of
weights. Keras refuses most of what could do harm itself (``safe_mode``); here only what a network
is made of passes, whatever the version, and the classes that are not Keras' own are named.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgesdk.errors import TaskError, UnsupportedModel

_CONFIG = "config.json"
_METADATA = "metadata.json"
_WEIGHTS = "model.weights.h5"
_MEMBERS = frozenset({_CONFIG, _METADATA, _WEIGHTS})
_LARGEST_CONFIG_BYTES = 64 * 2**20
LARGEST_BYTES = 2 * 2**30
"""What a flatbuffer, and so a ``.tflite`` file, can hold at most."""

# Where Keras keeps what networks are made of; keras.utils and keras.saving are not among them.
_MODULES = re.compile(
    r"keras(\.src)?(\.(layers|models|initializers|regularizers|constraints|activations|losses|"
    r"metrics|optimizers|dtype_policies|quantizers|ops)(\.\w+)*)?|builtins"
)
_RUNS_CODE = {
    "Lambda": "runs Python code that the file holds",
    "__lambda__": "runs Python code that the file holds",
    "TorchModuleWrapper": "unpickles a PyTorch module",
    "TFSMLayer": "loads another model from a path",
    "JaxLayer": "runs Python code",
    "FlaxLayer": "runs Python code",
}
_NARROW = re.compile(r"(mixed_)?(b?float16)|(int4|int8|float8|gptq|awq)\w*_from_\w+")
_EXPORT = (
    "export the network where its code is, as a graph without Python: model.export('FOLDER'), and "
    "name FOLDER here"
)


def check_archive(path: Path) -> None:
    """Raise for a ``.keras`` file that is not one, or that could do more than compute.

    ``TaskError`` for a broken or foreign file and for classes that run Python code or are not
    Keras' own, each by name; ``UnsupportedModel`` for a network that no ``.tflite`` file can hold.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            strangers = sorted(set(names) - _MEMBERS)
            if strangers or len(set(names)) != len(names) or not {_CONFIG, _WEIGHTS} <= set(names):
                raise TaskError(
                    f"{path} is not laid out as Keras does it: it holds "
                    f"{', '.join(names) or 'nothing'}",
                    expected=f"{_CONFIG}, {_METADATA} and {_WEIGHTS}",
                    next_step="save it again with model.save('model.keras')",
                )
            _check_sizes(path, infos)
            config = json.loads(archive.read(_CONFIG))
    except (
        zipfile.BadZipFile,
        ValueError,
        RecursionError,
        OSError,
        NotImplementedError,
    ) as problem:
        raise TaskError(
            f"{path} is not a .keras file: {problem}",
            expected="what model.save('model.keras') of Keras 3 writes",
            next_step="copy the file again, all of it",
        ) from problem
    if not isinstance(config, dict):
        raise TaskError(f"{path} holds a configuration that is no object")
    # How it was trained is not loaded, and may name the trainer's own functions.
    _check_classes(path, {key: value for key, value in config.items() if key != "compile_config"})


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        if info.filename != _WEIGHTS and info.file_size > _LARGEST_CONFIG_BYTES:
            raise TaskError(f"{path} holds {info.filename} of {info.file_size} bytes")
        if info.file_size > LARGEST_BYTES:
            raise UnsupportedModel(
                f"{path} holds {info.file_size} bytes of weights",
                expected=f"at most {LARGEST_BYTES}, which is what a .tflite file can hold",
                next_step="deploy a smaller network, or parts of it",
            )


def _check_classes(path: Path, config: dict[str, Any]) -> None:
    """Raise ``TaskError`` for what is built from anything but Keras' own parts."""
    for part in _objects(config):
        if "class_name" in part:
            _check_class(path, part)
        policy = part.get("dtype")
        if isinstance(policy, str) and _NARROW.fullmatch(policy):
            raise TaskError(
                f"{path} holds layers of type {policy}",
                expected="float32; what the file computes in is decided for the device",
                next_step="build it under keras.config.set_dtype_policy('float32'), load the "
                "weights and save it again",
            )


def _check_class(path: Path, part: dict[str, Any]) -> None:
    name, module = part["class_name"], part.get("module")
    called = part.get("config") if name == "function" else name
    title = _title(part)
    if name in _RUNS_CODE:
        raise TaskError(
            f"{path} holds {title}, which {_RUNS_CODE[str(name)]}",
            expected="layers of Keras' own that only compute",
            next_step=f"use a layer or an operation of keras.ops in its place, or {_EXPORT}",
        )
    registered = part.get("registered_name")
    own = registered in (None, name, called) and ">" not in str(registered or "")
    if (module is not None and not _MODULES.fullmatch(str(module))) or not own:
        whose = registered if isinstance(registered, str) and ">" in registered else module
        raise TaskError(
            f"{path} holds {title}, a custom object ({whose}) whose code is not in the file",
            expected="layers and functions of Keras' own",
            next_step=_EXPORT,
        )


def _title(part: dict[str, Any]) -> str:
    """Return "layer 'head' (Lambda)", or the bare name where a part has no name of its own."""
    config = part.get("config")
    named = config.get("name") if isinstance(config, dict) else None
    name = str(config) if part["class_name"] == "function" else str(part["class_name"])
    return f"layer {str(named)!r} ({name})" if named else name


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a configuration, the outer ones first."""
    pending = [document]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
