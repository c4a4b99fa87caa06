from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recovery_nets import Depthwise, Residual, calibration, images, run, seen
from torch import Tensor, nn

from edgesdk.compress.adaround import adaround
from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.compress.rounding import AI_EDGE, XNNPACK, Rounding, weight_scales
from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.plan import AdaRound
from edgesdk.target import find_target
from edgesdk.task import InputSpec, OutputSpec

SHORT = AdaRound(iterations=150, positions=1024)


def rounding_of(bits: int, target: str = "tflite") -> Rounding:
    return Rounding(quantizer=AI_EDGE if target == "tflite" else XNNPACK, weight_bits=bits)


def layers(net: nn.Module) -> dict[str, Any]:
    return {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def integers(weight: Tensor, rounding: Rounding) -> Tensor:
    scales = weight_scales(weight, 0, rounding).reshape(-1, *[1] * (weight.dim() - 1))
    return weight.detach() / scales


@pytest.mark.parametrize("build", [Depthwise, Residual])
@pytest.mark.parametrize("bits", [8, 3])
def test_each_weight_is_a_neighbour_on_the_grid_and_scales_stay(
    build: type[nn.Module], bits: int
) -> None:
    net = seen(build())
    rounding = rounding_of(bits)
    found = adaround(net, (images(1),), calibration(), SHORT, rounding, seed=0)
    folded = layers(fold_batch_norms(net, (images(1),)))
    assert set(found.error) == set(folded)
    assert not found.left_out
    for name, layer in layers(found.module).items():
        chosen, before = integers(layer.weight, rounding), integers(folded[name].weight, rounding)
        assert torch.allclose(chosen, chosen.round(), atol=1e-3)
        assert float((chosen - before).abs().max()) < 1 + 1e-3
        scales = [weight_scales(n.weight, 0, rounding) for n in (layer, folded[name])]
        assert torch.allclose(*scales, rtol=1e-6)


def test_no_layer_ends_worse_than_nearest_and_few_bits_gain() -> None:
    net = seen(Depthwise())
    rounding = rounding_of(3)
    found = adaround(net, (images(1),), calibration(), SHORT, rounding, seed=0)
    assert max(found.error.values()) <= 1
    assert min(found.error.values()) < 0.9
    inputs = images(64, seed=9)
    wanted = run(net, inputs)
    errors = []
    for module in (fold_batch_norms(net, (images(1),)), found.module):
        fake = FakeQuantized(module, (images(1),), rounding)
        fake.observe(calibration())
        errors.append(float((run(fake, inputs) - wanted).square().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_the_same_seed_gives_the_same_weights() -> None:
    def chosen(seed: int) -> dict[str, Tensor]:
        step = AdaRound(iterations=20, positions=256)
        found = adaround(
            seen(Depthwise()), (images(1),), calibration(), step, rounding_of(3), seed=seed
        )
        return dict(found.module.state_dict())

    first, second, other = chosen(0), chosen(0), chosen(1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


class Other(nn.Module):
    """A convolution over signals, a transposed one and one that asks for padding by name."""

    def __init__(self) -> None:
        super().__init__()
        self.signal = nn.Conv1d(6, 8, 3, stride=2, padding=1, dilation=2)
        self.up = nn.ConvTranspose1d(8, 5, 2)
        self.named = nn.Conv1d(5, 4, 3, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.named(self.up(self.signal(x).relu()))
        return y


def test_layers_that_cannot_be_fitted_are_left_out_by_name() -> None:
    examples = (torch.randn(1, 6, 20),)
    data = [(torch.randn(4, 6, 20),) for _ in range(4)]
    torch.manual_seed(0)
    found = adaround(Other(), examples, data, SHORT, rounding_of(3), seed=0)
    assert set(found.error) == {"signal"}
    assert set(found.left_out) == {"up", "named"}


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.parametrize("target", ["executorch", "tflite"])
def test_the_file_holds_exactly_the_integers_chosen(target: str, tmp_path: Path) -> None:
    net, rounding = seen(Depthwise()), rounding_of(8, target)
    found = adaround(net, (images(1),), calibration(), SHORT, rounding, seed=0).module
    model = CompressedModel(
        module=found,
        example_inputs=(images(1),),
        scheme="int8",
        calibration=tuple(calibration()),
        inputs=(InputSpec(name="x", kind="image", layout="NCHW"),),
        outputs=(OutputSpec(name="y"),),
    )
    runtime = load_device("host").runtime_for(target)
    emission = find_target(target).emit(model, runtime, tmp_path)
    content = (tmp_path / emission.files[0]).read_bytes()
    folded = layers(fold_batch_norms(net, (images(1),)))
    moved = 0
    for name, layer in layers(found).items():
        chosen = integers(layer.weight, rounding).round()
        moved += int((chosen != integers(folded[name].weight, rounding).round()).sum())
        assert _holds(content, chosen.to(torch.int8).numpy()), name
        assert not _holds(content, (-chosen).to(torch.int8).numpy()), name
    assert moved > 0, "rounding to nearest would have passed as well"


def _holds(content: bytes, weight: np.ndarray[Any, Any]) -> bool:
    """Whether the bytes of a weight are in a file in one of the layouts that runtimes store."""
    orders = [(0, 1), (1, 0)] if weight.ndim == 2 else [(0, 2, 3, 1), (1, 2, 3, 0), (0, 1, 2, 3)]
    forms = [np.ascontiguousarray(weight.transpose(order)).tobytes() for order in orders]
    return any(form in content for form in forms)


def test_tflites_grid_is_that_of_the_published_rule() -> None:
    weight = torch.tensor([[0.5, -1.27], [0.1, 0.2]])
    scales = weight_scales(weight, 0, Rounding(quantizer=AI_EDGE))
    assert scales.tolist() == pytest.approx([0.01, 0.2 / 127])
