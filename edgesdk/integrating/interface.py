"""What an app needs to know of an artifact, checked: nothing in a manifest is taken on trust."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesdk.artifact import Manifest, TensorSpec, read_manifest, sha256_of
from edgesdk.errors import ArtifactError
from edgesdk.integrating.golden import Golden, read_samples
from edgesdk.integrating.naming import Words, distinct, words
from edgesdk.task import InputSpec, OutputSpec

# Names of runtimes and files are shown in code and READMEs; shapes become constants.
_MOST_ELEMENTS = 1 << 28
_MOST_DIMENSIONS = 8
_MOST_LABELS = 100_000
_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
_PLAIN = ("float32", "float16", "int32", "int64", *_RANGES)
_IMAGE_AXES = {"NCHW": (0, 2, 3, 1), "NHWC": (0, 1, 2, 3)}


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input: an app gives ``app_shape`` values, the file takes ``tensor.shape`` of them.

    Images are [N, H, W, C] in an app whatever the file has, everything else as in PyTorch;
    ``order`` are PyTorch's axes in the app's order.
    ``strides`` say how far apart neighbours along each axis of the file are in the app's array.
    ``mean`` and ``std`` vary along ``channel_axis`` of the file; without them values go in as
    they are.
    """

    words: Words
    tensor: TensorSpec
    meaning: InputSpec
    app_shape: tuple[int, ...]
    order: tuple[int, ...]
    strides: tuple[int, ...]
    channel_axis: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def elements(self) -> int:
        """How many values there are."""
        return math.prod(self.app_shape)

    @property
    def to_file(self) -> tuple[int, ...]:
        """The permutation that turns the app's array into the file's layout."""
        return tuple(self.order.index(axis) for axis in self.tensor.from_torch)

    @property
    def app_dtype(self) -> str:
        """What an app gives: float32 for real numbers, else the integers that the file takes."""
        return "float32" if self.is_real else self.tensor.dtype

    @property
    def is_real(self) -> bool:
        """Whether an app gives real numbers (the file may hold integers that stand for them)."""
        return self.tensor.scale is not None or self.tensor.dtype.startswith("float")

    @property
    def is_image(self) -> bool:
        """Whether the axes are those of an image."""
        return self.meaning.kind == "image" and self.meaning.layout in _IMAGE_AXES


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output; an app gets ``shape`` values in PyTorch's order.

    ``strides`` say how far apart neighbours along each axis of ``shape`` are in the file's array.
    ``classes`` is the number of classes of a classifier ``[N, classes]``, else 0.
    """

    words: Words
    tensor: TensorSpec
    meaning: OutputSpec
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    labels: tuple[str, ...]
    classes: int

    @property
    def elements(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Interface:
    """An artifact as apps see it."""

    folder: Path
    manifest: Manifest
    words: Words
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    golden: Golden

    @property
    def model(self) -> Path:
        """The file or folder that the runtime loads."""
        return self.folder / self.manifest.files[0]

    @property
    def sha256(self) -> str:
        """The hash of that file or folder, as a measurement names the artifact."""
        return sha256_of(self.model)

    @property
    def golden_bytes(self) -> bytes:
        """The golden samples for an app: each input as it gives it, then each output in float32.

        Little-endian, one tensor after the other, all inferences of a tensor together.
        """
        taken = [
            np.transpose(array, (0, *(axis + 1 for axis in port.order))).astype(port.app_dtype)
            for array, port in zip(self.golden.inputs, self.inputs, strict=True)
        ]
        given = [array.astype(np.float32) for array in self.golden.outputs]
        return b"".join(
            array.astype(array.dtype.newbyteorder("<")).tobytes() for array in (*taken, *given)
        )


def read_interface(folder: Path) -> Interface:
    """Return what apps need to know of an artifact, its hashes checked first.

    Raises ``ArtifactError`` for a damaged artifact and for a manifest that contradicts itself.
    """
    manifest = read_manifest(folder)
    if len(manifest.inputs) != len(manifest.input_specs) or not manifest.inputs:
        raise _contradiction(f"{len(manifest.inputs)} inputs, {len(manifest.input_specs)} specs")
    if len(manifest.outputs) != len(manifest.output_specs) or not manifest.outputs:
        raise _contradiction(f"{len(manifest.outputs)} outputs, {len(manifest.output_specs)} specs")
    specs: tuple[InputSpec | OutputSpec, ...] = (*manifest.input_specs, *manifest.output_specs)
    # Together: some languages give all of them one scope.
    names = distinct([spec.name for spec in specs], fallback="tensor")
    inputs = tuple(map(_input, names, manifest.inputs, manifest.input_specs))
    output_names = names[len(inputs) :]
    outputs = tuple(map(_output, output_names, manifest.outputs, manifest.output_specs))
    return Interface(
        folder=folder,
        manifest=manifest,
        words=words(manifest.task, fallback="model"),
        inputs=inputs,
        outputs=outputs,
        golden=read_samples(folder, manifest),
    )


def torch_shape(tensor: TensorSpec) -> tuple[int, ...]:
    """Return a tensor's shape in PyTorch's order."""
    return tuple(tensor.shape[tensor.from_torch.index(axis)] for axis in range(len(tensor.shape)))


def _input(name: Words, tensor: TensorSpec, meaning: InputSpec) -> Input:
    _check_tensor(tensor)
    shape = torch_shape(tensor)
    order = tuple(range(len(shape)))
    if meaning.kind == "image" and len(shape) == 4:
        order = _IMAGE_AXES.get(meaning.layout, order)
    app_shape = tuple(shape[axis] for axis in order)
    steps = _steps(app_shape)
    channel = _channel_axis(tensor, meaning, shape)
    return Input(
        words=name,
        tensor=tensor,
        meaning=meaning,
        app_shape=app_shape,
        order=order,
        strides=tuple(steps[order.index(axis)] for axis in tensor.from_torch),
        channel_axis=tensor.from_torch.index(channel),
        mean=meaning.mean,
        std=meaning.std,
    )


def _output(name: Words, tensor: TensorSpec, meaning: OutputSpec) -> Output:
    _check_tensor(tensor)
    shape = torch_shape(tensor)
    steps = _steps(tensor.shape)
    is_scores = meaning.kind in ("logits", "probabilities") and len(shape) == 2
    labels = tensor.labels or meaning.labels
    if len(labels) > _MOST_LABELS:
        raise _contradiction(f"{tensor.name!r} has {len(labels)} labels")
    if is_scores and labels and len(labels) != shape[1]:
        raise _contradiction(f"{tensor.name!r} has {len(labels)} labels for {shape[1]} classes")
    return Output(
        words=name,
        tensor=tensor,
        meaning=meaning,
        shape=shape,
        strides=tuple(steps[tensor.from_torch.index(axis)] for axis in range(len(shape))),
        labels=labels,
        classes=shape[1] if is_scores else 0,
    )


def _channel_axis(tensor: TensorSpec, meaning: InputSpec, shape: tuple[int, ...]) -> int:
    """Return the axis of PyTorch's layout along which mean and std vary; 0 where they do not."""
    if len(meaning.mean) != len(meaning.std):
        raise _contradiction(
            f"{tensor.name!r} has {len(meaning.mean)} means, another number of std"
        )
    if not all(math.isfinite(v) for v in meaning.mean + meaning.std) or 0.0 in meaning.std:
        raise _contradiction(f"{tensor.name!r} has a mean or std that nothing can be divided by")
    if len(meaning.mean) <= 1:
        return 0
    axis = meaning.layout.find("C") if len(meaning.layout) == len(shape) else 1
    if not 0 <= axis < len(shape) or shape[axis] != len(meaning.mean):
        raise _contradiction(f"{tensor.name!r} has {len(meaning.mean)} means and shape {shape}")
    return axis


def _check_tensor(tensor: TensorSpec) -> None:
    name, shape = tensor.name, tensor.shape
    if not 0 < len(shape) <= _MOST_DIMENSIONS or any(size < 1 for size in shape):
        raise _contradiction(f"{name!r} has the shape {shape}")
    if math.prod(shape) > _MOST_ELEMENTS:
        raise _contradiction(f"{name!r} has {math.prod(shape)} elements")
    if sorted(tensor.from_torch) != list(range(len(shape))):
        raise _contradiction(f"{name!r} permutes by {tensor.from_torch}")
    if tensor.dtype not in _PLAIN:
        raise _contradiction(f"{name!r} has the type {tensor.dtype!r}")
    if tensor.scale is None:
        return
    low, high = _RANGES.get(tensor.dtype, (0, -1))
    is_known = math.isfinite(tensor.scale) and tensor.scale > 0
    if not is_known or not low <= (tensor.zero_point or 0) <= high:
        raise _contradiction(f"{name!r} is {tensor.dtype} with scale {tensor.scale}")


def _steps(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _contradiction(what: str) -> ArtifactError:
    return ArtifactError(
        f"the manifest cannot be: {what}",
        expected="a manifest that edgesdk wrote",
        next_step="compile the artifact anew",
    )
