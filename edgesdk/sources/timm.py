"""``timm:NAME``: a network of the user's own timm, with random weights and nothing downloaded."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from edgesdk.errors import TaskError, near_names
from edgesdk.task import InputSpec, OutputSpec, Task


def load_timm(name: str) -> Task:
    """Return a task with the network that timm calls ``name``; its weights are random.

    It shows what the network costs on a device, not how well it works: the task's name says so.
    For trained weights write a task in Python. Raises ``TaskError`` where timm is not installed
    or knows no such network.
    """
    timm = _import()
    if not timm.is_model(name):
        near = near_names(name, timm.list_models())
        raise TaskError(
            f"timm knows no network {name!r}",
            next_step=f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()",
        )
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    config = model.pretrained_cfg
    shape = config["input_size"]
    return Task(
        name=f"{name} (random weights)",
        model=model,
        example_inputs=(torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)),),
        inputs=(
            InputSpec(
                name="image",
                kind="image",
                layout="NCHW",
                mean=tuple(config["mean"]),
                std=tuple(config["std"]),
            ),
        ),
        outputs=(OutputSpec(name="logits", kind="logits"),),
        source=f"timm {timm.__version__} {name}, random weights, seed 0",
    )


def _import() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as problem:
        raise TaskError(
            f"timm cannot be imported: {problem}",
            expected="your own installation of timm, with the torchvision it needs",
            next_step="pip install timm",
        ) from problem
