"""Between an app's arrays and the file's: normalisation, layout, quantization, labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Tensor:
    """One input or output of the file.

    ``to_file`` turns an app's array into the file's layout. Where ``scale`` is set the file holds
    integers: real = scale * (integer - zero_point). ``mean`` and ``std`` vary along
    ``channel_axis`` of the file.
    """

    name: str
    app_shape: tuple[int, ...]
    app_dtype: str
    file_shape: tuple[int, ...]
    file_dtype: str
    to_file: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channel_axis: int = 0

    def encode(self, values: Array, *, normalise: bool) -> Array:
        """Return an app's values as the file takes them; ``ValueError`` for another shape."""
        array = np.asarray(values, self.app_dtype)
        if array.shape == self.app_shape[1:] and self.app_shape[0] == 1:
            array = array[None]
        if array.shape != self.app_shape:
            raise ValueError(f"{self.name} has the shape {array.shape}, not {self.app_shape}")
        array = np.transpose(array, self.to_file)
        if normalise and self.mean:
            spread = [1] * array.ndim
            spread[self.channel_axis] = len(self.mean)
            mean = np.array(self.mean, np.float32).reshape(spread)
            array = (array - mean) / np.array(self.std, np.float32).reshape(spread)
        if self.scale is not None:
            limits = np.iinfo(self.file_dtype)
            steps = np.rint(array / np.float32(self.scale)) + np.float32(self.zero_point)
            array = np.clip(steps, limits.min, limits.max)
        return np.ascontiguousarray(array.astype(self.file_dtype))

    def decode(self, array: Array) -> NDArray[np.float32]:
        """Return what the file answered as real numbers in the app's layout."""
        array = array.reshape(self.file_shape)
        if self.scale is not None:
            steps = array.astype(np.float32) - np.float32(self.zero_point)
            array = steps * np.float32(self.scale)
        app_order = np.argsort(self.to_file)
        return np.ascontiguousarray(np.transpose(array.astype(np.float32), app_order))


@dataclass(frozen=True)
class Prediction:
    """The best class: its index, its label (the index as text where there is none), its score."""

    index: int
    label: str
    score: float


def best(scores: NDArray[np.float32], labels: tuple[str, ...]) -> Prediction:
    """Return the class with the largest of ``[classes]`` scores."""
    index = int(scores.argmax())
    return Prediction(index, labels[index] if labels else str(index), float(scores[index]))
