"""Apply a plan to the original model: prune, recover, and hand over to the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
from torch import nn

from edgesdk.compress.distil import recover
from edgesdk.compress.prune import prune
from edgesdk.compressed import CompressedModel
from edgesdk.plan import Distil, Finetune, Plan, Prune, Step
from edgesdk.scheme import Scheme
from edgesdk.stages.request import Request
from edgesdk.task_source import calibration_batches

_WEIGHTS = "weights.safetensors"


def compress(request: Request, plan: Plan, *, recovered: bool = True) -> CompressedModel:
    """Return the model the plan describes, pruned and (unless ``recovered`` is false) retrained.

    Recovered weights are cached under the task, the steps and the seed; a killed training run
    resumes from its last epoch.
    """
    module = _pruned(request, plan.steps)
    if recovered and trains(plan.steps):
        module = _recovered(request, plan, module)
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
    return any(isinstance(step, Distil | Finetune) for step in steps)


def model_key(request: Request, plan: Plan, *, recovered: bool) -> str:
    """Return the cache key of the compressed float module: what was done to which weights."""
    steps = [
        step
        for step in plan.steps
        if isinstance(step, Prune) or (recovered and isinstance(step, Distil | Finetune))
    ]
    # Training in another arithmetic ends in other weights.
    where = request.accelerator.type if recovered and trains(plan.steps) else "any"
    return request.key_for("model", steps_key(steps), plan.seed, where)


def steps_key(steps: Sequence[Step]) -> str:
    """Return a stable text for a sequence of steps."""
    return "\n".join(repr(step) for step in steps)


def _pruned(request: Request, steps: Sequence[Step]) -> nn.Module:
    module = request.task.model
    for step in steps:
        if isinstance(step, Prune):
            module = prune(module, request.task.example_inputs, step.groups)
    return module


def _recovered(request: Request, plan: Plan, pruned: nn.Module) -> nn.Module:
    key = model_key(request, plan, recovered=True)
    scratch = request.cache.scratch("recover", key)

    def build(folder: Path) -> None:
        module = pruned
        for index, step in enumerate(plan.steps):
            if isinstance(step, Distil | Finetune):
                request.progress.step(f"Recovering accuracy ({step.kind})")
                module = recover(
                    module,
                    request.task.model,
                    request.task,
                    step,
                    device=request.accelerator,
                    seed=plan.seed,
                    on_epoch=lambda report: request.progress.advance(
                        report.epoch, report.epochs, report.note
                    ),
                    checkpoint=scratch / str(index),
                )
        # Copies, because safetensors refuses names that share memory, as tied weights do.
        state = {name: t.clone().contiguous() for name, t in module.state_dict().items()}
        safetensors.torch.save_file(state, folder / _WEIGHTS)

    folder = request.cache.folder("recover", key, build)
    request.cache.drop_scratch("recover", key)
    pruned.load_state_dict(safetensors.torch.load_file(folder / _WEIGHTS))
    return pruned
