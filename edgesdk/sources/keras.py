"""Keras models (``.keras``) and TensorFlow's SavedModels, which go to ``.tflite`` files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgesdk.errors import TaskError, UnsupportedModel
from edgesdk.foreign import Foreign
from edgesdk.graph import OpGraph
from edgesdk.sources.keras_archive import LARGEST_BYTES, check_archive
from edgesdk.sources.tensorflow import TensorFlow
from edgesdk.task import InputSpec, OutputSpec, Task, Tensors

_GRAPH = "saved_model.pb"
_TYPES = {
    "float32": torch.float32, "int32": torch.int32, "int64": torch.int64, "uint8": torch.uint8,
    "int8": torch.int8, "bool": torch.bool,
}  # fmt: skip
# Keras and TensorFlow number what they name twice, and call their wrappers after themselves.
_NUMBERED = re.compile(r"_\d+$")
_WRAPPERS = re.compile(
    r"(StatefulPartitionedCall|PartitionedCall|serving_default_.*|Identity)(:\d+)?"
)


class KerasModel(Foreign):
    """A Keras model or a SavedModel's signature, run by TensorFlow in a process of its own.

    ``inputs`` say of each input its name, shape (None: open) and type; ``output_names`` the
    outputs', in order.
    """

    title = "a Keras model"
    framework = "TensorFlow"
    target = "tflite"
    refused = {  # noqa: RUF012 - read only
        "int4_dynamic": "a Keras model has no weights here that int4 could be compared with"
    }

    def __init__(self, path: Path, *, signature: str = "") -> None:
        super().__init__()
        self.path = path
        self.digest = _digest(path)
        is_folder = path.is_dir()
        if not is_folder:
            check_archive(path)
        self._tensorflow = TensorFlow(path)
        said = self._tensorflow.open("saved_model" if is_folder else "keras", signature)
        self.inputs: list[dict[str, Any]] = said["inputs"]
        self.output_names: list[str] = said["outputs"]
        self.gives_probabilities: bool = said["probabilities"]
        self.tool_versions = {str(name): str(v) for name, v in said["versions"].items()}
        self._layers = frozenset(said["layers"])
        self._files: dict[tuple[tuple[int, ...], ...], bytes] = {}
        # Cache keys cover a module's buffers: here they stand for weights, signature and tools.
        made_of = f"{self.digest} {signature} {sorted(self.tool_versions.items())}"
        key = torch.tensor(list(hashlib.sha256(made_of.encode()).digest()), dtype=torch.uint8)
        self.register_buffer("key", key)

    def forward(self, *tensors: Tensor) -> Tensor | Tensors:
        """Return TensorFlow's outputs ``[N, ...]`` for inputs ``[N, ...]``, in its own layout."""
        self._check(tensors)
        given = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors]
        found = tuple(torch.from_numpy(array) for array in self._tensorflow.run(given))
        return found[0] if len(found) == 1 else found

    def float_file(self, example_inputs: Tensors) -> bytes:
        """Return the float ``.tflite`` file for inputs of these shapes, as TensorFlow makes it."""
        self._check(example_inputs)
        shapes = tuple(tuple(example.shape) for example in example_inputs)
        for given, shape in zip(self.inputs, shapes, strict=True):
            if given["shape"][0] not in (None, shape[0]):
                raise UnsupportedModel(
                    f"{self.path}: input {given['name']!r} takes a batch of {given['shape'][0]}, "
                    f"the example input is one of {shape[0]}",
                    next_step=f"give example inputs of {given['shape'][0]}, or save the model "
                    "without a batch_size",
                )
        if shapes not in self._files:
            self._files[shapes] = self._tensorflow.convert(shapes)
        return self._files[shapes]

    def graph(self, example_inputs: Tensors, name: str) -> OpGraph:
        """Return what the float file computes; ``UnsupportedModel`` for loops and for state."""
        try:
            return super().graph(example_inputs, name)
        except UnsupportedModel as problem:
            raise UnsupportedModel(
                f"{self.path} as a .tflite file: {problem.found}",
                expected=problem.expected,
                next_step="give recurrent layers unroll=True, and write other loops as operations "
                "on whole tensors",
            ) from problem

    def layer_of(self, tensor: str) -> str:
        """Return the Keras layer in a tensor's name, for a SavedModel the scope around it.

        Operators that were fused are listed one after the other, the first to compute last, each
        as scopes and a name.
        """
        for name in reversed(tensor.split(";")):
            scopes = [part for part in name.split("/")[:-1] if not _WRAPPERS.fullmatch(part)]
            for scope in reversed(scopes):
                for layer in (scope, _NUMBERED.sub("", scope)):
                    if layer in self._layers:
                        return layer
            if scopes and not self._layers:
                return "/".join(scopes)
        return ""

    def _check(self, tensors: Sequence[Tensor]) -> None:
        """Raise ``TaskError`` for tensors that the model does not take."""
        found = [(list(tensor.shape[1:]), tensor.dtype) for tensor in tensors]
        fits = len(found) == len(self.inputs) and all(
            dtype == _TYPES[given["dtype"]]
            and len(shape) == len(given["shape"]) - 1
            and all(
                wanted in (None, size)
                for wanted, size in zip(given["shape"][1:], shape, strict=True)
            )
            for (shape, dtype), given in zip(found, self.inputs, strict=False)
        )
        if not fits:
            raise TaskError(
                f"{self.path} was given {'; '.join(f'{s} {d}' for s, d in found) or 'nothing'} "
                "behind the batch",
                expected="; ".join(map(_described, self.inputs)),
                next_step="give example inputs in the model's own layout, images as [N, H, W, C]",
            )


def keras_model(path: str | Path, *, signature: str = "") -> KerasModel:
    """Return the network of a ``.keras`` file or a SavedModel's folder, for ``Task(model=...)``.

    Its inputs and outputs stay in its own layout, images as ``[N, H, W, C]``. ``signature`` names
    the function of a SavedModel that has several. Raises ``TaskError`` for what is broken, no such
    file, or holds code of its own, ``TargetUnavailable`` where TensorFlow cannot be had.
    """
    path = Path(path)
    if path.suffix.lower() in (".h5", ".hdf5"):
        raise TaskError(
            f"{path} is of a format that Keras 3 has given up",
            expected="a .keras file or a SavedModel",
            next_step="load it where it was made and save it with model.save('model.keras')",
        )
    if path.is_dir():
        if not (path / _GRAPH).is_file():
            raise TaskError(
                f"{path} is no SavedModel: it holds no {_GRAPH}",
                expected="a folder that model.export or tf.saved_model.save wrote",
            )
    elif not path.is_file():
        raise TaskError(f"{path} does not exist", expected="a .keras file or a SavedModel's folder")
    elif path.suffix.lower() != ".keras":
        raise TaskError(
            f"{path} is no .keras file", expected="a .keras file or a SavedModel's folder"
        )
    return KerasModel(path, signature=signature)


def load_keras(path: Path) -> Task:
    """Return a task with the model alone, and inputs drawn at random in the shapes it declares.

    Raises ``TaskError`` as ``keras_model`` does, and for inputs whose shape is open: which, and
    what to do.
    """
    model = keras_model(path)
    outputs = model.output_names
    kind: Any = "probabilities" if model.gives_probabilities else "tensor"
    return Task(
        name=path.resolve().stem,
        model=model,
        example_inputs=_examples(model),
        inputs=tuple(InputSpec(name=given["name"]) for given in model.inputs),
        outputs=tuple(OutputSpec(name=name, kind=kind) for name in outputs),
        source=model.digest,
    )


def _examples(model: KerasModel) -> Tensors:
    """Return a batch of one (or what the model fixes) for every input, always the same numbers.

    Zeros would hide most mistakes.
    """
    draw = torch.Generator().manual_seed(0)
    examples = []
    for given in model.inputs:
        batch, *sizes = given["shape"] or [None]
        if None in sizes:
            raise TaskError(
                f"{model.path} leaves sizes open: {_described(given)}",
                expected="inputs of one shape, as every file that is made here takes",
                next_step="write a task in Python with keras_model(...) and example_inputs of the "
                "shape to deploy, or save the model with keras.Input of that shape",
            )
        shape, dtype = (batch or 1, *sizes), _TYPES[given["dtype"]]
        most = 256 if dtype == torch.uint8 else 2  # a word that every vocabulary has
        example = (
            torch.randn(shape, generator=draw)
            if dtype.is_floating_point
            else torch.randint(0, most, shape, generator=draw).to(dtype)
        )
        examples.append(example)
    return tuple(examples)


def _described(given: dict[str, Any]) -> str:
    shape = ", ".join("?" if size is None else str(size) for size in given["shape"])
    return f"input {given['name']!r} is [{shape}] {given['dtype']}"


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their names."""
    digest = hashlib.sha256()
    total = 0
    for file in _files(path):
        total += file.stat().st_size
        if total > LARGEST_BYTES:
            raise UnsupportedModel(
                f"{path} has more than {LARGEST_BYTES} bytes, which no .tflite file can hold",
                next_step="deploy a smaller network, or parts of it",
            )
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        if file.is_symlink():
            raise TaskError(
                f"{path} holds the link {file.name}",
                expected="a folder of plain files",
                next_step="copy the folder with what its links name",
            )
        if file.is_file():
            yield file
