import copy

import pytest
import torch
from torch import Tensor, nn

from edgesdk.planner.simulation import simulate
from edgesdk.scheme import SCHEMES, Scheme


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Flatten(),
        nn.Linear(4 * 16 * 16, 5),
    ).eval()


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def answer(module: nn.Module, inputs: Tensor) -> Tensor:
    outputs = module(inputs)
    assert isinstance(outputs, Tensor)
    return outputs


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_model_itself_is_left_alone(scheme: Scheme) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    outputs = answer(model, images())
    simulate(model, scheme, [(images(),)])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(answer(model, images()), outputs)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_fp32_computes_exactly_the_same() -> None:
    model = network()
    simulated = simulate(model, "fp32", [])
    assert simulated is not model
    assert torch.equal(answer(simulated, images()), answer(model, images()))


def test_fp16_rounds_every_weight_and_nothing_more() -> None:
    model = network()
    simulated = simulate(model, "fp16", [])
    for wanted, got in zip(model.parameters(), simulated.parameters(), strict=True):
        assert torch.equal(got, wanted.half().float())
    assert not torch.equal(answer(simulated, images()), answer(model, images()))


def test_int8_costs_something_and_not_much() -> None:
    model = network()
    noise = answer(simulate(model, "int8", [(images(),)]), images()) - answer(model, images())
    ratio = float(noise.norm() / answer(model, images()).norm())
    assert 1e-4 < ratio < 0.1


def levels(weight: Tensor, axis: int) -> list[int]:
    return [len(torch.unique(channel)) for channel in weight.detach().unbind(axis)]


def test_int8_weights_are_symmetric_per_output_channel() -> None:
    model = nn.Sequential(nn.Linear(64, 3)).eval()
    model[0].weight.data *= torch.tensor([[1.0], [100.0], [1e-3]])
    rounded = simulate(model, "int8", [(torch.randn(4, 64),)])[0].weight  # type: ignore[index]
    scale = model[0].weight.abs().amax(1, keepdim=True) / 127
    integers = rounded / scale
    assert torch.allclose(integers, integers.round(), atol=1e-3)
    assert float(integers.abs().max()) == pytest.approx(127, abs=1e-3)
    # Each channel is off by half of its own step, however small its weights are.
    assert bool(((rounded - model[0].weight).abs() <= scale * 0.5001).all())


def test_a_transposed_convolutions_output_channels_lie_on_the_second_axis() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 2)).eval()
    model[0].weight.data *= torch.tensor([1.0, 1e4, 1e-4]).reshape(1, 3, 1, 1)
    rounded = simulate(model, "int8", [(torch.randn(1, 2, 4, 4),)])[0].weight  # type: ignore[index]
    error = (rounded - model[0].weight).abs().amax((0, 2, 3))
    assert bool((error <= model[0].weight.abs().amax((0, 2, 3)) / 127 * 0.5001).all())


def test_int8_activations_are_rounded_to_the_range_that_was_seen() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).eval()
    model[0].weight.data.fill_(1.0)
    simulated = simulate(model, "int8", [(torch.tensor([[-1.0], [3.0]]),)])
    scale = 4 / 255
    inputs = torch.linspace(-1, 3, 50).reshape(-1, 1)
    assert float((answer(simulated, inputs) - inputs).abs().max()) <= scale * 0.51
    outside = answer(simulated, torch.tensor([[-9.0], [9.0]])).flatten()
    assert outside.tolist() == pytest.approx([-1.0, 3.0], abs=scale)
    assert float(answer(simulated, torch.zeros(1, 1))) == 0.0


def test_a_range_that_never_touches_zero_still_holds_it() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).eval()
    model[0].weight.data.fill_(1.0)
    simulated = simulate(model, "int8", [(torch.tensor([[5.0], [6.0]]),)])
    assert float(answer(simulated, torch.zeros(1, 1))) == 0.0
    assert float(answer(simulated, torch.full((1, 1), 6.0))) == pytest.approx(6.0, abs=6 / 255)


def test_the_range_is_of_all_calibration_batches_together() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).eval()
    model[0].weight.data.fill_(1.0)
    batches = [(torch.tensor([[value]]),) for value in (10.0, -5.0, 1.0)]
    simulated = simulate(model, "int8", batches)
    ends = answer(simulated, torch.tensor([[-5.0], [10.0]])).flatten()
    assert ends.tolist() == pytest.approx([-5.0, 10.0], abs=15 / 255)


def test_zero_weights_and_zero_inputs_stay_zero() -> None:
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    simulated = simulate(model, "int8", [(torch.zeros(1, 2),)])
    assert torch.equal(answer(simulated, torch.ones(3, 2)), torch.zeros(3, 2))


def test_it_computes_in_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    simulated = simulate(model, "int8", [(torch.randn(8, 4),)])
    inputs = torch.randn(8, 4)
    assert torch.equal(answer(simulated, inputs), answer(simulated, inputs))
    assert model.training
