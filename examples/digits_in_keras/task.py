"""An example task: a network that was trained in Keras, with the data that its file is proven on.

``train.py`` made ``digits.keras``. Images stay as Keras has them, [N, 8, 8, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from train import samples

from edgesdk import InputSpec, OutputSpec, Task, keras_model
from edgesdk.task import Predict, Split


def calibration() -> Iterator[tuple[Tensor, ...]]:
    """Yield inputs that look like those on the device, without targets."""
    for image in torch.from_numpy(samples("calibration")[0]):
        yield (image[None],)


def evaluate(predict: Predict, split: Split) -> float:
    """Return the accuracy of ``predict``, whatever is behind it; higher is better."""
    images, digits = map(torch.from_numpy, samples(split))
    return float((predict(images).argmax(1) == digits).float().mean())


def task() -> Task:
    """Return what ``examples/digits_in_keras/task.py:task`` names on the command line."""
    return Task(
        name="digits-in-keras",
        model=keras_model(Path(__file__).with_name("digits.keras")),
        example_inputs=(torch.from_numpy(samples("validation")[0][:1]),),
        inputs=(InputSpec(name="image", kind="image", layout="NHWC"),),
        outputs=(OutputSpec(name="logits", kind="logits", labels=tuple("0123456789")),),
        calibration=calibration,
        evaluate=evaluate,
    )
