"""The model: `Model().predict(Inputs(...))`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .processing import Array, Prediction, Tensor, best
from .runtime import Session

MODEL_FILE = Path(__file__).with_name("model.tflite")
MODEL_SHA256 = "d9415876d067863c7a8593b0a4891a65511f58d79a05d7fba4d84d339d32d632"
DEVICE = "google_pixel_8"
BATCH_SIZE = 1
THREADS = 1

INPUTS = (
    Tensor(
        name="image",
        app_shape=(1, 8, 8, 1),
        app_dtype="float32",
        file_shape=(1, 8, 8, 1),
        file_dtype="float32",
        to_file=(0, 1, 2, 3),
        mean=(0.30506754,),
        std=(0.37525913,),
        channel_axis=0,
    ),
)
OUTPUTS = (
    Tensor(
        name="logits",
        app_shape=(1, 10),
        app_dtype="float32",
        file_shape=(1, 10),
        file_dtype="float32",
        to_file=(0, 1),
    ),
)
LOGITS_LABELS: tuple[str, ...] = (
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
)


@dataclass(frozen=True)
class Inputs:
    """What goes in; normalised here.

    - `image`: float32 (1, 8, 8, 1), pixels from 0 to 1, [batch, height, width, channels]
    """

    image: Array


@dataclass(frozen=True)
class Outputs:
    """What comes out.

    - `logits`: float32 (1, 10), logits
    """

    logits: NDArray[np.float32]

    def best_logits(self, sample: int = 0) -> Prediction:
        """Return the class with the largest score of one sample."""
        return best(self.logits[sample], LOGITS_LABELS)


class Model:
    """The loaded file; its SHA-256 is checked first (`ValueError` where it is another file)."""

    def __init__(self, threads: int = THREADS) -> None:
        content = MODEL_FILE.read_bytes()
        if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
            raise ValueError(f"{MODEL_FILE.name} is not the file that was compiled")
        input_names = [tensor.name for tensor in INPUTS]
        output_names = [tensor.name for tensor in OUTPUTS]
        self.session = Session(content, input_names, output_names, threads)

    def predict(self, inputs: Inputs, *, normalise: bool = True) -> Outputs:
        """Return the outputs; `normalise=False` for inputs that are normalised already."""
        values = (
            inputs.image,
        )
        pairs = zip(values, INPUTS, strict=True)
        arrays = [tensor.encode(value, normalise=normalise) for value, tensor in pairs]
        self.session.set_inputs(arrays)
        self.session.invoke()
        answers = zip(self.session.outputs(), OUTPUTS, strict=True)
        return Outputs(*(tensor.decode(array) for array, tensor in answers))
