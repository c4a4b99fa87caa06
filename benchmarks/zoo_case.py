"""One case of the zoo: build, perhaps prune, emit, re-open, run here, compare with PyTorch."""

from __future__ import annotations

import math
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from zoo_networks import OWN
from zoo_transformers import ARCHITECTURES, Architecture

from edgesdk.compress.prune import ChannelGroup, prune, survey_channels
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.device_files import load_device
from edgesdk.errors import EdgeSDKError, ParityError, UnsupportedModel
from edgesdk.parity import compare, gate
from edgesdk.plan import PrunedGroup
from edgesdk.running.adapter import decode_outputs, encode_inputs
from edgesdk.scheme import Scheme
from edgesdk.target import Target, find_target
from edgesdk.task import InputSpec, OutputSpec, Tensors, output_tensors
from edgesdk.trace import trace

DEVICES: Mapping[str, str] = {
    "executorch": "raspberry_pi_5",
    "tflite": "raspberry_pi_5",
    "coreml": "iphone_15_pro",
    "onnx": "jetson_orin_nano",
}
_CALIBRATION, _COMPARED = 32, 8
_LARGEST_TEXT = 600
_FRAMES_TOLD = 6
_MOST_LEFT = 0.5
_LEAST_VARIATION = 1e-4


def run_case(name: str, target: str, scheme: Scheme, *, pruned: bool) -> dict[str, Any]:
    """Return how a case ended and why: status and detail, the ratio where it was run."""
    torch.manual_seed(0)
    try:
        module, shaped = build(name)
        found: dict[str, Any] = {}
        if pruned:
            module, found["left"] = halve(module, shaped)
        return _prove(module, shaped, find_target(target), scheme) | found
    except ParityError as stop:
        return {"status": "wrong", "detail": _told(stop)}
    except EdgeSDKError as refusal:
        return {"status": "refused", "detail": _told(refusal)}
    except Exception as problem:  # noqa: BLE001 - counted and told, as what it is: a defect
        frames = traceback.format_exception(problem)[-_FRAMES_TOLD:]
        detail = f"{type(problem).__name__}: {problem}"[:_LARGEST_TEXT]
        return {"status": "crashed", "detail": detail, "traceback": "".join(frames)}


def _prove(module: nn.Module, shaped: Tensors, target: Target, scheme: Scheme) -> dict[str, Any]:
    runtime = load_device(DEVICES[target.name]).runtime_for(target.name)
    calibration, fresh = samples(shaped, _CALIBRATION), samples(shaped, _COMPARED)
    with torch.no_grad():
        reference = output_tensors(module(*fresh))
    for index, output in enumerate(reference):
        if float(output.std(0).mean()) < _LEAST_VARIATION * float(output.abs().mean()):
            raise ValueError(f"output {index} hardly depends on the input: nothing to compare")
    model = CompressedModel(
        module=module,
        example_inputs=tuple(tensor[:1] for tensor in calibration),
        scheme=scheme,
        calibration=(calibration,),
        inputs=tuple(InputSpec(name=f"input_{i}") for i in range(len(shaped))),
        outputs=tuple(OutputSpec(name=f"output_{i}") for i in range(len(reference))),
    )
    with tempfile.TemporaryDirectory() as folder:
        return _compare(target, model, runtime, Path(folder), fresh=fresh, reference=reference)


def _compare(
    target: Target, model: CompressedModel, runtime: Runtime, folder: Path, *, fresh: Tensors,
    reference: Tensors,
) -> dict[str, Any]:  # fmt: skip
    emission = target.emit(model, runtime, folder)
    checks = target.checks(folder, emission, model)
    host = target.host_runtime(runtime)
    assert host is not None
    # This process is the one that may crash, so the file is run right here.
    session = target.open(folder, emission, host.name, 1)
    stacked, count = encode_inputs(fresh, emission.inputs)
    results = [session.run(list(batch)) for batch in zip(*stacked, strict=True)]
    outputs = [np.stack(output) for output in zip(*results, strict=True)]
    actual = decode_outputs(outputs, emission.outputs, count)
    parity = compare(reference, actual, model.outputs, checks, runtime=host)
    gate(parity, model.scheme)
    return {"status": parity.status, "detail": "", "sqnr_db": parity.sqnr_db}


def _told(problem: EdgeSDKError) -> str:
    return str(problem)[:_LARGEST_TEXT]


def halve(module: nn.Module, shaped: Tensors) -> tuple[nn.Module, dict[str, float]]:
    """Return the network with at most half of its multiplications, and the parts left of it.

    Half of every group goes, or three quarters where half leaves too much (of a network whose
    output is its last hidden state, that width stays). Raises ``UnsupportedModel`` where more than
    half of the multiplications stay: such a network counts as one that cannot be pruned by 2x.
    """
    survey = survey_channels(module, shaped)
    for kept_of in (2, 4):
        smaller = prune(module, shaped, [_thinned(group, kept_of) for group in survey.groups])
        left = {
            "macs": _macs(smaller, shaped) / _macs(module, shaped),
            "weights": _weights(smaller) / _weights(module),
            "removed": 1 - 1 / kept_of,
        }
        if left["macs"] <= _MOST_LEFT:
            _settle(smaller, shaped)
            return smaller, {key: round(value, 3) for key, value in left.items()}
    reasons = sorted(f"{layer}: {reason}" for layer, reason in survey.refused.items())
    raise UnsupportedModel(
        f"only {len(survey.groups)} groups of channels can go, {left['macs']:.0%} of the "
        f"multiplications stay: {'; '.join(reasons)}",
        next_step="quantize it instead",
    )


def _thinned(group: ChannelGroup, kept_of: int) -> PrunedGroup:
    """Return the group with one of so many of its units kept."""
    gone = [unit for place, unit in enumerate(group.units) if place % kept_of]
    return PrunedGroup(
        layer=group.layer,
        width_before=group.width,
        removed=tuple(sorted(channel for unit in gone for channel in unit)),
        heads=group.heads,
    )


def _macs(module: nn.Module, shaped: Tensors) -> int:
    return sum(op.macs for op in trace(module, shaped, name="").ops)


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def build(name: str) -> tuple[nn.Module, Tensors]:
    """Return a network in eval mode, its batch norms' statistics real, and a batch of one input."""
    if name in OWN:
        make, shape = OWN[name]
        module, shaped = make(), (torch.zeros(shape),)
    else:
        module, shaped = _from_transformers(ARCHITECTURES[name])
    with torch.no_grad():
        _enliven(module)
    _settle(module, shaped)
    return module.eval(), shaped


def _settle(module: nn.Module, shaped: Tensors) -> None:
    """Let the batch norms see what reaches them, in place."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches
    if norms:
        module.train()
        with torch.no_grad():
            for _ in range(3):
                module(*samples(shaped, _CALIBRATION))
    module.eval()


def _enliven(module: nn.Module) -> None:
    """Draw all weights anew, in place, so that signals keep their size on the way through.

    What transformers draws is meant to be trained: residual branches scaled by 1e-6, biases of
    zero, classifiers of 0.02. Their outputs hardly depend on the input, and no comparison of such
    outputs says anything. Batch norms get a positive bias: with none, each layer of a random
    network magnifies any difference by 1.21 (Yang et al. 2019, "A Mean Field Theory of Batch
    Normalization", section 5), and rounding is all that comes out of a deep one.
    """
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.dim() > 1:
                inputs = parameter[0].numel() if not isinstance(owner, nn.Embedding) else 1
                parameter.normal_(std=inputs**-0.5)
            elif "bias" in name:
                parameter.normal_(mean=1.0 if isinstance(owner, _BatchNorm) else 0.0, std=0.1)
            else:
                parameter.uniform_(0.7, 1.3)


def _from_transformers(architecture: Architecture) -> tuple[nn.Module, Tensors]:
    import transformers

    from edgesdk.sources.huggingface import TensorsOnly, example_inputs

    config = getattr(transformers, architecture.config)(**architecture.settings)
    config.use_cache = False
    model = getattr(transformers, architecture.model)(config).eval()
    if architecture.part:
        model = getattr(model, f"get_{architecture.part}")()
    named = example_inputs(model)
    if architecture.image:
        named = {key: torch.zeros(1, 3, *2 * (architecture.image,)) for key in named}
    if "input_values" in named:
        named = {"input_values": torch.zeros(1, 1600)}
    if "input_features" in named:
        named = {
            "input_features": torch.zeros(1, config.num_mel_bins, 2 * config.max_source_positions)
        }
    return TensorsOnly(model, tuple(named)), tuple(named.values())


def samples(shaped: Tensors, count: int) -> Tensors:
    """Return a batch shaped like the inputs: smooth images, noise, any tokens, masks of ones."""

    def like(tensor: Tensor) -> Tensor:
        shape = (count, *tensor.shape[1:])
        if tensor.dim() == 4:
            # Images of nothing but noise look all the same behind a pooling.
            coarse = torch.randn(*shape[:2], *(math.ceil(size / 8) for size in shape[2:]))
            smooth = functional.interpolate(coarse, shape[2:], mode="bilinear")
            return smooth + 0.3 * torch.randn(shape)
        if tensor.is_floating_point():
            return torch.randn(shape)
        return torch.randint(1, 90, shape)

    first, *rest = shaped
    return (like(first), *(torch.ones_like(t).repeat(count, *[1] * (t.dim() - 1)) for t in rest))
