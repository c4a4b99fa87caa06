"""Carry a plan out on the original model, step by step, and hand the result to the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
from torch import nn

from edgesdk.compress.distil import recover
from edgesdk.compress.factorize import factorized
from edgesdk.compress.prune import prune
from edgesdk.compress.recalibrate import recalibrated_for
from edgesdk.compress.samples import sample_inputs
from edgesdk.compress.shape import PREPARING, shaped, shaped_by
from edgesdk.compressed import CompressedModel
from edgesdk.errors import UnsupportedModel
from edgesdk.foreign import Foreign
from edgesdk.plan import (
    AdaRound,
    BiasCorrection,
    Distil,
    Factorize,
    Finetune,
    Plan,
    Prune,
    Qat,
    Quantize,
    Step,
)
from edgesdk.scheme import Scheme
from edgesdk.stages.epochs import train_by_workers
from edgesdk.stages.preparation import prepare
from edgesdk.stages.request import Request
from edgesdk.task_check import calibration_batches

_WEIGHTS = "weights.safetensors"
_TRAINING = Distil | Finetune | Qat
_ROUNDING = AdaRound | BiasCorrection | Qat


def compress(request: Request, plan: Plan, *, recovered: bool = True) -> CompressedModel:
    """Return the model the plan describes, its steps carried out in order.

    Where ``recovered`` is false only the shapes are the plan's: channels go, layers are split by
    their weights alone, batch norms are folded where a step folds them, and no step changes a
    weight otherwise. Every step's weights
    are cached under the task, the steps up to it and the seed, so plans that begin alike share
    what they have in common; a killed training run resumes from its last epoch.
    """
    module = request.task.model
    if isinstance(module, Foreign) and any(not isinstance(s, Quantize) for s in plan.steps):
        raise UnsupportedModel(
            f"the plan changes more than the precision, and {module.unpruned}",
            expected="a plan whose only step is to quantize",
        )
    if not recovered:
        module = shaped_by(request.task, plan.steps)
        return compressed_model(request, module, plan.scheme, plan.layer_schemes)
    for index, step in enumerate(plan.steps):
        if isinstance(step, Prune):
            module = _pruned(request, step, module)
        elif not isinstance(step, Quantize):
            module = _carried_out(request, plan, index, module)
    return compressed_model(request, module, plan.scheme, plan.layer_schemes)


def compressed_model(
    request: Request, module: nn.Module, scheme: Scheme,
    layer_schemes: Mapping[str, Scheme] = MappingProxyType({}),
) -> CompressedModel:  # fmt: skip
    """Return a float module together with what the target needs to emit it in ``scheme``."""
    return CompressedModel(
        module=module.eval(),
        example_inputs=request.task.example_inputs,
        scheme=scheme,
        calibration=tuple(calibration_batches(request.task)),
        inputs=request.inputs,
        outputs=request.outputs,
        layer_schemes=dict(layer_schemes),
    )


def trains(steps: Sequence[Step]) -> bool:
    """Return whether any step trains."""
    return any(isinstance(step, _TRAINING) for step in steps)


def model_key(request: Request, plan: Plan, *, recovered: bool) -> str:
    """Return the cache key of the compressed float module: what was done to which weights."""
    return _prefix_key(request, plan, len(plan.steps), recovered=recovered)


def _prefix_key(request: Request, plan: Plan, count: int, *, recovered: bool) -> str:
    """Return the key of what the first ``count`` steps give."""
    done = [step for step in plan.steps[:count] if not isinstance(step, Quantize)]
    if not recovered:
        folds = any(isinstance(step, PREPARING) for step in done)
        shapes = [step for step in done if isinstance(step, Prune | Factorize)]
        stay = any(isinstance(step, Prune) and step.moves_batch_norms for step in shapes)
        shape = "batch norms as they were" if stay else "any"
        return request.key_for("model", steps_key(shapes), plan.seed, shape, folds or None)
    # Training in another arithmetic ends in other weights, rounding for another quantizer too.
    where = request.accelerator.type if trains(done) else "any"
    rounds = any(isinstance(step, _ROUNDING) for step in done)
    quantizer = request.quantizer if rounds else None
    return request.key_for("model", steps_key(done), plan.seed, where, quantizer)


def steps_key(steps: Sequence[Step]) -> str:
    """Return a stable text for a sequence of steps."""
    return "\n".join(repr(step) for step in steps)


def _pruned(request: Request, step: Prune, module: nn.Module) -> nn.Module:
    """Return the module without what goes, its batch norms moved where that is asked."""
    examples = request.task.example_inputs
    if step.moves_batch_norms:
        _, batches = sample_inputs(request.task)
        blocks = step.removed_blocks
        module = recalibrated_for(module, examples, step.groups, batches, blocks=blocks)
    return shaped(module, examples, step)


def _carried_out(request: Request, plan: Plan, index: int, module: nn.Module) -> nn.Module:
    """Return what a step that changes weights makes of the module, from the cache if there."""
    key = _prefix_key(request, plan, index + 1, recovered=True)
    step = plan.steps[index]
    scratch = request.cache.scratch("recover", key)
    train_epoch = None
    if isinstance(step, Distil | Qat):
        before = plan.steps[:index]
        train_epoch = train_by_workers(request, step, before=before, seed=plan.seed)

    def build(folder: Path) -> None:
        if isinstance(step, Factorize):
            request.progress.step("Splitting layers")
            inputs, batches = sample_inputs(request.task)
            shown = () if inputs == "example" else batches
            done = factorized(module, request.task.example_inputs, step.ranks, shown)
        elif isinstance(step, Distil | Finetune):
            request.progress.step(f"Recovering accuracy ({step.kind})")
            done = recover(
                module,
                request.task.model,
                request.task,
                step,
                device=request.accelerator,
                seed=plan.seed,
                on_epoch=lambda report: request.progress.advance(
                    report.epoch, report.epochs, report.note
                ),
                checkpoint=scratch / "training",
                train_epoch=train_epoch,
            )
        else:
            done = prepare(
                request, step, module, seed=plan.seed, checkpoint=scratch / "training",
                train_epoch=train_epoch,
            )  # fmt: skip
        # Copies, because safetensors refuses names that share memory, as tied weights do.
        state = {name: t.clone().contiguous() for name, t in done.state_dict().items()}
        safetensors.torch.save_file(state, folder / _WEIGHTS)

    folder = request.cache.folder("recover", key, build)
    request.cache.drop_scratch("recover", key)
    examples = request.task.example_inputs
    network = shaped(prune(module, examples, ()), examples, step)
    network.load_state_dict(safetensors.torch.load_file(folder / _WEIGHTS))
    return network
