import copy

import pytest
import torch
from torch import Tensor, nn

from edgesdk.compress.fold import folded_weights
from edgesdk.compress.palette import palettise
from edgesdk.compress.sparsify import sparse_weight
from edgesdk.planner.simulation import simulate
from edgesdk.scheme import KEPT_AS, SCHEMES, Scheme


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
    simulate(model, scheme, [(images(),)], target="tflite")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(answer(model, images()), outputs)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_fp32_computes_exactly_the_same() -> None:
    model = network()
    simulated = simulate(model, "fp32", [], target="tflite")
    assert simulated is not model
    assert torch.equal(answer(simulated, images()), answer(model, images()))


def test_fp16_rounds_every_weight_and_nothing_more() -> None:
    model = network()
    simulated = simulate(model, "fp16", [], target="tflite")
    for wanted, got in zip(model.parameters(), simulated.parameters(), strict=True):
        assert torch.equal(got, wanted.half().float())
    assert not torch.equal(answer(simulated, images()), answer(model, images()))


def test_int8_costs_something_and_not_much() -> None:
    model = network()
    noise = answer(simulate(model, "int8", [(images(),)], target="tflite"), images()) - answer(
        model, images()
    )
    ratio = float(noise.norm() / answer(model, images()).norm())
    assert 1e-4 < ratio < 0.1


def levels(weight: Tensor, axis: int) -> list[int]:
    return [len(torch.unique(channel)) for channel in weight.detach().unbind(axis)]


def test_int8_weights_are_symmetric_per_output_channel() -> None:
    model = nn.Sequential(nn.Linear(64, 3)).eval()
    model[0].weight.data *= torch.tensor([[1.0], [100.0], [1e-3]])
    rounded = simulate(model, "int8", [(torch.randn(4, 64),)], target="tflite")[0].weight  # type: ignore[index]
    scale = model[0].weight.abs().amax(1, keepdim=True) / 127
    integers = rounded / scale
    assert torch.allclose(integers, integers.round(), atol=1e-3)
    assert float(integers.abs().max()) == pytest.approx(127, abs=1e-3)
    # Each channel is off by half of its own step, however small its weights are.
    assert bool(((rounded - model[0].weight).abs() <= scale * 0.5001).all())


def test_a_transposed_convolutions_output_channels_lie_on_the_second_axis() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 2)).eval()
    model[0].weight.data *= torch.tensor([1.0, 1e4, 1e-4]).reshape(1, 3, 1, 1)
    rounded = simulate(model, "int8", [(torch.randn(1, 2, 4, 4),)], target="tflite")[0].weight  # type: ignore[index]
    error = (rounded - model[0].weight).abs().amax((0, 2, 3))
    assert bool((error <= model[0].weight.abs().amax((0, 2, 3)) / 127 * 0.5001).all())


def test_int8_activations_are_rounded_to_the_range_that_was_seen() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).eval()
    model[0].weight.data.fill_(1.0)
    simulated = simulate(model, "int8", [(torch.tensor([[-1.0], [3.0]]),)], target="tflite")
    scale = 4 / 255
    inputs = torch.linspace(-1, 3, 50).reshape(-1, 1)
    assert float((answer(simulated, inputs) - inputs).abs().max()) <= scale * 0.51
    outside = answer(simulated, torch.tensor([[-9.0], [9.0]])).flatten()
    assert outside.tolist() == pytest.approx([-1.0, 3.0], abs=scale)
    assert float(answer(simulated, torch.zeros(1, 1))) == 0.0


def test_a_range_that_never_touches_zero_still_holds_it() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).eval()
    model[0].weight.data.fill_(1.0)
    simulated = simulate(model, "int8", [(torch.tensor([[5.0], [6.0]]),)], target="tflite")
    assert float(answer(simulated, torch.zeros(1, 1))) == 0.0
    assert float(answer(simulated, torch.full((1, 1), 6.0))) == pytest.approx(6.0, abs=6 / 255)


def test_the_range_is_of_all_calibration_batches_together() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).eval()
    model[0].weight.data.fill_(1.0)
    batches = [(torch.tensor([[value]]),) for value in (10.0, -5.0, 1.0)]
    simulated = simulate(model, "int8", batches, target="tflite")
    ends = answer(simulated, torch.tensor([[-5.0], [10.0]])).flatten()
    assert ends.tolist() == pytest.approx([-5.0, 10.0], abs=15 / 255)


def test_zero_weights_and_zero_inputs_stay_zero() -> None:
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    simulated = simulate(model, "int8", [(torch.zeros(1, 2),)], target="tflite")
    assert torch.equal(answer(simulated, torch.ones(3, 2)), torch.zeros(3, 2))


def test_it_computes_in_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    simulated = simulate(model, "int8", [(torch.randn(8, 4),)], target="tflite")
    inputs = torch.randn(8, 4)
    assert torch.equal(answer(simulated, inputs), answer(simulated, inputs))
    assert model.training


def wide() -> nn.Module:
    """Layers that every scheme can have: 64 inputs everywhere."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, 64),
        nn.Linear(64, 10),
    ).eval()  # fmt: skip


def wide_images() -> Tensor:
    return torch.randn(6, 64, 4, 4, generator=torch.Generator().manual_seed(6))


def ratio_db(scheme: Scheme, target: str = "tflite", **layers: Scheme) -> float:
    """Return the signal to noise of a simulated network, in dB."""
    model, inputs = wide(), wide_images()
    found = simulate(model, scheme, [(inputs,)], target=target, layer_schemes=layers)
    wanted = answer(model, inputs)
    noise = answer(found, inputs) - wanted
    return float(20 * torch.log10(wanted.norm() / noise.norm()))


@pytest.mark.parametrize("target", ["executorch", "coreml", "tflite", "onnx", "somebody_else"])
@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "fp32"])
def test_no_scheme_but_fp32_is_free(scheme: Scheme, target: str) -> None:
    # The smaller half of evenly spread weights holds an eighth of their energy: 9 dB a layer.
    assert (4 if scheme in KEPT_AS else 10) < ratio_db(scheme, target) < 90


def test_int4_costs_more_than_int8() -> None:
    assert ratio_db("int4_dynamic") < ratio_db("int8_dynamic") - 10
    assert ratio_db("w4", "coreml") < ratio_db("w8", "coreml") - 10


def test_int4_weights_have_a_scale_for_each_group_of_inputs() -> None:
    model = nn.Sequential(nn.Linear(64, 3)).eval()
    model[0].weight.data[:, 32:] *= 1e-3
    rounded = simulate(model, "w4", [], target="coreml")[0].weight  # type: ignore[index]
    groups = model[0].weight.reshape(3, 2, 32)
    scale = groups.abs().amax(2, keepdim=True) / 7
    assert bool(((rounded.reshape(3, 2, 32) - groups).abs() <= scale * 0.5001).all())
    assert max(len(group.unique()) for row in rounded.reshape(3, 2, 32) for group in row) <= 15


def test_a_layer_that_cannot_be_int4_is_rounded_as_its_target_gives_it() -> None:
    model = nn.Sequential(nn.Linear(24, 8)).eval()
    inputs = torch.randn(4, 24)
    narrow = simulate(model, "int4_dynamic", [], target="executorch")
    wide = simulate(model, "int8_dynamic", [], target="executorch")
    assert torch.equal(answer(narrow, inputs), answer(wide, inputs))


def test_layers_of_their_own_scheme_are_rounded_in_it_alone() -> None:
    kept = ratio_db("int4_dynamic", **{"3": "int8_dynamic"})
    both = ratio_db("int4_dynamic", **{"3": "int8_dynamic", "4": "int8_dynamic"})
    assert ratio_db("int4_dynamic") + 1 < kept < both - 1
    assert both == ratio_db("int8_dynamic")
    names = ("0", "3", "4")
    model, inputs = wide(), wide_images()
    floats = simulate(
        model, "int8_dynamic", [], target="tflite", layer_schemes=dict.fromkeys(names, "fp32")
    )
    assert torch.equal(answer(floats, inputs), answer(model, inputs))


def test_dynamic_ranges_are_a_rows_and_a_samples_own() -> None:
    linear = nn.Sequential(nn.Linear(2, 1, bias=False)).eval()
    linear[0].weight.data.fill_(1.0)
    simulated = simulate(linear, "int8_dynamic", [], target="tflite")
    rows = torch.tensor([[0.3, 0.7], [300.0, 700.0]])
    found = answer(simulated, rows).flatten() / answer(linear, rows).flatten()
    assert found.tolist() == pytest.approx([1.0, 1.0], abs=0.005)
    image = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(7))
    scaled = image * torch.tensor([1.0, 1e3]).reshape(2, 1, 1, 1)
    conv = nn.Sequential(nn.Conv2d(64, 4, 3, bias=False)).eval()
    both = answer(simulate(conv, "int8_dynamic", [], target="tflite"), scaled)
    alone = answer(simulate(conv, "int8_dynamic", [], target="tflite"), scaled[:1])
    assert torch.allclose(both[:1], alone, atol=1e-6)


def test_a_palette_is_found_with_the_batch_norm_in_the_weight() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 32, 3), nn.BatchNorm2d(32)).eval()
    nn.init.uniform_(net[1].weight, 0.01, 3)
    inputs = torch.randn(4, 8, 6, 6)
    folded = folded_weights(net, (inputs,))
    alone, together = (
        simulate(net, "lut4", [], target="coreml", folded=weights)
        for weights in ({}, folded)
    )  # fmt: skip
    assert len(alone[0].weight.unique()) == 16  # type: ignore[index]
    held = folded_weights(together, (inputs,))["0"].half()
    assert torch.equal(held, torch.from_numpy(palettise(folded["0"].numpy(), 4).decoded))
    with torch.no_grad():
        exact = net(inputs)
        losses = [float((exact - found(inputs)).square().mean()) for found in (alone, together)]
    # What the file loses is more than the weights alone would: their channels differ more.
    assert losses[1] > losses[0]


def test_palettes_cost_more_the_fewer_bits() -> None:
    ratios = [ratio_db(scheme, "coreml") for scheme in ("lut8", "lut6", "lut4")]
    assert ratios[0] > ratios[1] + 6 > ratios[2] + 12


def test_half_the_weights_at_zero_cost_more_than_a_table_of_as_many_bits() -> None:
    assert ratio_db("lut4", "coreml") > ratio_db("w8_sparse50", "coreml") + 6
    # Beside the zeros it hardly shows what the others are rounded to.
    assert ratio_db("lut4_sparse50", "coreml") == pytest.approx(
        ratio_db("w8_sparse50", "coreml"), abs=1
    )


def test_a_layer_that_was_trained_sparse_loses_what_rounding_loses() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64)).eval()
    nn.init.uniform_(net[1].weight, -3, 3)
    inputs = torch.randn(2, 64, 6, 6)
    net[0].weight.data = sparse_weight(net[0].weight.data, axis=0)
    folded = folded_weights(net, (inputs,))
    for dense, sparse in (("w8", "w8_sparse50"), ("lut4", "lut4_sparse50")):
        found = [
            simulate(net, scheme, [], target="coreml", folded=folded)  # type: ignore[arg-type]
            for scheme in (dense, sparse)
        ]
        losses = [float((answer(net, inputs) - answer(f, inputs)).square().mean()) for f in found]
        # The table of a sparse layer has no value for the zeros, so it may even lose less.
        assert losses[1] <= losses[0] * (1 + 1e-6)
        kept = found[1][0].weight  # type: ignore[index]
        assert torch.equal(kept == 0, net[0].weight == 0)
