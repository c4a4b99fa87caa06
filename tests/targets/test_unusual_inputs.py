"""Unusual models and inputs end in a right file or in a verdict that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.errors import EdgeSDKError, TaskError, UnsupportedModel
from edgesdk.parity import compare, gate
from edgesdk.running.adapter import decode_outputs, encode_inputs
from edgesdk.target import find_target
from edgesdk.task import Task, Tensors, output_tensors
from edgesdk.task_check import check_task, input_specs, output_specs

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]

DEVICES = {
    "executorch": "raspberry_pi_5",
    "tflite": "raspberry_pi_5",
    "coreml": "iphone_15_pro",
    "onnx": "jetson_orin_nano",
}


class SeveralTensors(nn.Module):
    """Two inputs, two outputs, and a layer that is used twice on the same input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensors:
        return self.left(x) + self.right(y), self.left(x) * 2


class Tokens(nn.Module):
    """Integer inputs: numbers of tokens and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return (self.embed(tokens) * mask.unsqueeze(-1).to(torch.float32)).sum(1)


class Masked(nn.Module):
    """A boolean input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        result: Tensor = self.layer(torch.where(keep, x, torch.zeros_like(x)))
        return result


class Named(nn.Module):
    """A dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layer(x)}


class Counting(nn.Module):
    """A buffer that forward changes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        result: Tensor = self.layer(x) + self.calls
        return result


class Image(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.conv(x).mean((2, 3)))
        return result


class Decomposed(nn.Module):
    """An operator that no target has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.linalg.svdvals(self.layer(x).reshape(-1, 2, 4))
        return result


def images(count: int) -> Tensors:
    return (torch.randn(count, 3, 8, 8),)


def last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last)


Case = tuple[nn.Module, Callable[[int], Tensors], int]

# The network, its inputs for a number of samples, and the batch that is deployed.
COMPUTED: Mapping[str, Callable[[], Case]] = {
    "several inputs and outputs": lambda: (
        SeveralTensors(), lambda n: (torch.randn(n, 8), torch.randn(n, 6)), 1,
    ),
    "integer inputs": lambda: (
        Tokens(), lambda n: (torch.randint(0, 10, (n, 5)), torch.ones(n, 5, dtype=torch.int64)), 1,
    ),
    "32-bit integer inputs": lambda: (
        Tokens(), lambda n: (torch.randint(0, 10, (n, 5)).int(), torch.ones(n, 5).int()), 1,
    ),
    "boolean inputs": lambda: (
        Masked(), lambda n: (torch.randn(n, 8), torch.randn(n, 8) > 0), 1,
    ),
    "a batch of three": lambda: (Image(), images, 3),
    "channels last": lambda: (last_weights(Image()), lambda n: (last(images(n)[0]),), 1),
}  # fmt: skip

REFUSED: Mapping[str, tuple[Callable[[], Case], type[EdgeSDKError], str]] = {
    "a dictionary": (
        lambda: (Named(), lambda n: (torch.randn(n, 8),), 1), TaskError, "returned a dict",
    ),
    "a changing buffer": (
        lambda: (Counting(), lambda n: (torch.randn(n, 8),), 1),
        UnsupportedModel, r"buffer 'calls'.*self\.calls \+= 1",
    ),
    "half-precision weights": (
        lambda: (Image().half(), lambda n: (images(n)[0].half(),), 1),
        TaskError, r"conv\.weight.*torch\.float16.*model\.float\(\)",
    ),
    "an operator that no target has": (
        lambda: (Decomposed(), lambda n: (torch.randn(n, 8),), 1),
        UnsupportedModel, r"svd.*another (delegate or )?target",
    ),
}  # fmt: skip

# Core ML has no boolean inputs at all.
WITHOUT = {("boolean inputs", "coreml"): "use int32"}


def last_weights(model: nn.Module) -> nn.Module:
    converted: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return converted


def prove(case: Case, target_name: str, folder: Path) -> None:
    """Check the task, emit it, run the file here and compare it with PyTorch."""
    module, draw, batch = case
    module.eval()
    task = Task(name="unusual", model=module, example_inputs=draw(batch), source="a test")
    check_task(task)
    target = find_target(target_name)
    runtime = load_device(DEVICES[target_name]).runtime_for(target_name)
    model = CompressedModel(
        module=module,
        example_inputs=task.example_inputs,
        scheme=runtime.float_scheme,
        calibration=(),
        inputs=input_specs(task),
        outputs=output_specs(task),
    )
    emission = target.emit(model, runtime, folder)
    host = target.host_runtime(runtime)
    assert host is not None
    session = target.open(folder, emission, host.name, 1)
    samples = draw(2 * batch + 1)
    stacked, count = encode_inputs(samples, emission.inputs)
    results = [session.run(list(one)) for one in zip(*stacked, strict=True)]
    arrays = [np.stack(output) for output in zip(*results, strict=True)]
    actual = decode_outputs(arrays, emission.outputs, count)
    with torch.no_grad():
        reference = output_tensors(module(*samples))
    checks = target.checks(folder, emission, model)
    gate(compare(reference, actual, model.outputs, checks, runtime=host), model.scheme)


@pytest.mark.parametrize("target_name", DEVICES)
@pytest.mark.parametrize("name", COMPUTED)
def test_it_is_computed_right(name: str, target_name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    refusal = WITHOUT.get((name, target_name))
    if refusal is None:
        prove(COMPUTED[name](), target_name, tmp_path)
        return
    with pytest.raises(UnsupportedModel, match=refusal):
        prove(COMPUTED[name](), target_name, tmp_path)


# The first three are refused before any target is asked.
_ASKED = [(name, "onnx") for name in REFUSED] + [
    ("an operator that no target has", name) for name in ("executorch", "tflite", "coreml")
]


@pytest.mark.parametrize(("name", "target_name"), _ASKED)
def test_it_is_refused_with_what_to_do(name: str, target_name: str, tmp_path: Path) -> None:
    make, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words) as caught:
        prove(make(), target_name, tmp_path)
    assert caught.value.next_step
