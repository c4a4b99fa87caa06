import copy

import pytest
import torch
from recovery_nets import Depthwise, Residual, calibration, images, run, seen
from torch import nn

from edgesdk.compress.bias_correction import correct_biases
from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.compress.rounding import AI_EDGE, Rounding
from edgesdk.errors import TaskError

FOUR_BITS = Rounding(quantizer=AI_EDGE, weight_bits=4)


def quantized(net: nn.Module, rounding: Rounding) -> FakeQuantized:
    fake = FakeQuantized(copy.deepcopy(net), (images(1),), rounding)
    fake.observe(calibration())
    return fake


@pytest.mark.parametrize("build", [Depthwise, Residual])
def test_outputs_have_the_right_mean_on_the_calibration_data(build: type[nn.Module]) -> None:
    net = seen(build())
    data = torch.cat([batch[0] for batch in calibration()])
    wanted = run(net, data).mean(0)
    plain = quantized(fold_batch_norms(net, (images(1),)), FOUR_BITS)
    corrected = correct_biases(net, (images(1),), calibration(), FOUR_BITS)
    before = (run(plain, data).mean(0) - wanted).abs()
    after = (run(quantized(corrected, FOUR_BITS), data).mean(0) - wanted).abs()
    assert float(before.max()) > 1e-2
    assert float(after.max()) < 0.1 * float(before.max())


def test_it_helps_on_other_data_and_touches_biases_alone() -> None:
    net = seen(Depthwise(), spread=1.0)
    folded = fold_batch_norms(net, (images(1),))
    corrected = correct_biases(net, (images(1),), calibration(64), FOUR_BITS)
    inputs = images(64, seed=9)
    wanted = run(net, inputs)
    before = (run(quantized(folded, FOUR_BITS), inputs) - wanted).square().mean()
    after = (run(quantized(corrected, FOUR_BITS), inputs) - wanted).square().mean()
    assert float(after) < float(before)
    for name, value in folded.state_dict().items():
        same = torch.equal(corrected.state_dict()[name], value)
        assert same != name.endswith("bias"), name


def test_without_calibration_data_it_says_what_is_missing() -> None:
    with pytest.raises(TaskError, match="calibration data"):
        correct_biases(seen(Depthwise()), (images(1),), [], FOUR_BITS)
