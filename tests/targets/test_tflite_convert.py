"""The float file that the precisions of one model share, made once."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tflite_nets import compressed, network
from torch import nn

from edgesdk.compressed import CompressedModel
from edgesdk.task import InputSpec, Tensors
from edgesdk_tflite import convert

pytestmark = pytest.mark.toolchain


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """What was converted in earnest."""
    monkeypatch.setattr(convert, "_LAST", {})
    log: list[nn.Module] = []
    earnest = convert._litert_torch_convert

    def logged(wrapped: nn.Module, inputs: Tensors) -> bytes:
        log.append(wrapped)
        return earnest(wrapped, inputs)

    monkeypatch.setattr(convert, "_litert_torch_convert", logged)
    return log


def model() -> CompressedModel:
    module, examples = network("perceptron")
    return compressed(module, examples, "fp32")


def scale_a_weight(model: CompressedModel) -> CompressedModel:
    with torch.no_grad():
        next(model.module.parameters())[0, 0] *= 2
    return model


def rename(model: CompressedModel) -> CompressedModel:
    return replace(model, inputs=(InputSpec(name="other"),))


def repeat(model: CompressedModel) -> CompressedModel:
    return replace(model, example_inputs=tuple(x.repeat(2, 1) for x in model.example_inputs))


def test_another_precision_converts_nothing_anew(conversions: list[nn.Module]) -> None:
    first = model()
    once = convert.convert_float(first)
    count = len(conversions)
    assert convert.convert_float(replace(first, scheme="int8")) is once
    assert len(conversions) == count >= 1


@pytest.mark.parametrize("change", [scale_a_weight, rename, repeat])
def test_another_model_is_converted(
    conversions: list[nn.Module], change: Callable[[CompressedModel], CompressedModel]
) -> None:
    first = model()
    once = convert.convert_float(first)
    count = len(conversions)
    assert convert.convert_float(change(first)) != once
    assert len(conversions) > count
