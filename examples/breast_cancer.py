"""An example task: tell malignant from benign tumours by 30 measurements of cell nuclei.

Data: Breast Cancer Wisconsin (Diagnostic), 569 real samples (Street, Wolberg, Mangasarian 1993),
as scikit-learn ships it. The network is trained on the spot, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from edgesdk import Batch, InputSpec, OutputSpec, Task
from edgesdk.task import Predict, Split

ROWS = {
    "training": slice(0, 320),
    "calibration": slice(320, 369),
    "validation": slice(369, 469),
    "test": slice(469, 569),
}


@cache
def samples(name: str) -> tuple[Tensor, Tensor]:
    """Return normalised inputs [N, 30] and class indices [N]; no two splits share a sample."""
    data = load_breast_cancer()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    inputs = torch.tensor(data.data, dtype=torch.float32)[order]
    targets = torch.tensor(data.target, dtype=torch.long)[order]
    seen = inputs[ROWS["training"]]
    inputs = (inputs - seen.mean(0)) / seen.std(0)
    return inputs[ROWS[name]], targets[ROWS[name]]


def training() -> Iterator[Batch]:
    """Yield one epoch, shuffled by torch's global generator, which edgesdk seeds."""
    inputs, targets = samples("training")
    for rows in torch.randperm(len(inputs)).split(32):
        yield Batch(inputs=(inputs[rows],), targets=targets[rows])


def calibration() -> Iterator[tuple[Tensor, ...]]:
    """Yield inputs that look like those on the device, without targets."""
    for row in samples("calibration")[0]:
        yield (row[None],)


def evaluate(predict: Predict, split: Split) -> float:
    """Return the accuracy of ``predict``, whatever is behind it; higher is better."""
    inputs, targets = samples(split)
    return float((predict(inputs).argmax(1) == targets).float().mean())


def trained() -> nn.Module:
    """Return the trained network; yours is more likely loaded from a safetensors file."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(10):
        for batch in training():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(*batch.inputs), batch.targets).backward()
            optimizer.step()
    return model.eval()


def task() -> Task:
    """Return what ``breast_cancer.py:task`` names on the command line."""
    return Task(
        name="breast-cancer",
        model=trained(),
        example_inputs=(samples("validation")[0][:1],),
        inputs=(InputSpec(name="measurements"),),
        outputs=(OutputSpec(name="logits", kind="logits", labels=("malignant", "benign")),),
        calibration=calibration,
        training=training,
        evaluate=evaluate,
    )
