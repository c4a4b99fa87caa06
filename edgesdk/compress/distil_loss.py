"""The distillation loss: what the student is trained on, from outputs, targets and the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from edgesdk.errors import TaskError, UsageError, near_names
from edgesdk.plan import Training
from edgesdk.task import OutputSpec, Task, Tensors, output_tensors
from edgesdk.user_code import user_code

Features = Mapping[str, Tensor]


def soft_loss(student: Tensor, teacher: Tensor, *, temperature: float, dim: int) -> Tensor:
    """Return ``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, a mean over samples.

    Logits of any shape with the classes along ``dim``; other dimensions are positions and are
    averaged like samples. Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
    2015, eq. 4; T^2 keeps the gradient's scale from depending on T (their section 2).
    """
    soft_student = F.log_softmax(student / temperature, dim=dim)
    soft_teacher = F.log_softmax(teacher / temperature, dim=dim)
    divergence = F.kl_div(soft_student, soft_teacher, reduction="none", log_target=True)
    return temperature**2 * divergence.sum(dim=dim).mean()


def distillation_loss(
    task: Task, step: Training, student: Any, teacher: Any, targets: Tensor | None
) -> Tensor:
    """Return ``(1 - alpha) * task_loss + alpha * soft`` for one batch, as a scalar.

    ``student`` and ``teacher`` are what the two models returned. ``soft`` sums over outputs:
    ``soft_loss`` where an output holds class scores, the mean squared error where it does not
    (regression, embeddings, a single score per sample). Without targets it is ``soft`` alone.

    Raises ``TaskError`` when there are targets and no way to score outputs against them.
    """
    students, teachers = output_tensors(student), output_tensors(teacher)
    specs = task.outputs or (None,) * len(students)
    pairs = list(zip(specs, students, teachers, strict=True))
    trainable = [pair for pair in pairs if pair[1].is_floating_point()]
    if not trainable:
        raise TaskError(
            f"task {task.name!r}: no output of the model is a floating-point tensor",
            expected="at least one output that a gradient can flow through",
        )
    losses = [_soft(spec, s, t, targets, step.temperature) for spec, s, t in trainable]
    soft = torch.stack(losses).sum()
    if targets is None:
        return soft
    if step.alpha == 1:
        return soft
    return (1 - step.alpha) * _task_loss(task, student, targets) + step.alpha * soft


def class_dimension(spec: OutputSpec | None, output: Tensor, targets: Tensor | None) -> int | None:
    """Return the dimension of ``output`` that holds class scores, None where it holds no such.

    A declared ``kind`` decides whether there is one; an output without a spec has one when the
    targets are class indices for it. Which one: the one as long as ``labels``; else the one that
    class-index targets lack; else dimension 1, or the last of ``[N, positions, classes]``.
    A dimension of length 1 is a single score, not classes.
    """
    if spec is not None and spec.kind == "tensor":
        return None
    dims = [dim for dim in range(1, output.dim()) if output.shape[dim] > 1]
    indexed = [dim for dim in dims if _indexes(targets, output, dim)]
    if spec is None:
        return indexed[0] if indexed else None
    labelled = [dim for dim in dims if output.shape[dim] == len(spec.labels)]
    usual = [-1 % output.dim() if output.dim() == 3 else 1]
    likely = [dim for dim in (labelled or indexed or usual) if dim in dims]
    return likely[0] if likely else None


def _indexes(targets: Tensor | None, output: Tensor, dim: int) -> bool:
    """Whether the targets are class indices for an output with its classes along ``dim``."""
    if targets is None or targets.is_floating_point() or targets.dtype == torch.bool:
        return False
    return targets.shape == output.shape[:dim] + output.shape[dim + 1 :]


def _soft(
    spec: OutputSpec | None,
    student: Tensor,
    teacher: Tensor,
    targets: Tensor | None,
    temperature: float,
) -> Tensor:
    dim = class_dimension(spec, student, targets)
    if dim is None:
        return F.mse_loss(student, teacher)
    return soft_loss(
        _logits(spec, student), _logits(spec, teacher), temperature=temperature, dim=dim
    )


def _logits(spec: OutputSpec | None, output: Tensor) -> Tensor:
    """Return class scores as logits; log-probabilities are logits, since softmax is shift-free."""
    if spec is None or spec.kind != "probabilities":
        return output
    return output.clamp_min(torch.finfo(output.dtype).tiny).log()


def _task_loss(task: Task, student: Any, targets: Tensor) -> Tensor:
    if task.loss is not None:
        what = f"task {task.name!r}: loss(outputs, targets)"
        with user_code(what):
            loss: object = task.loss(student, targets)
        if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.requires_grad:
            shape = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else ""
            raise TaskError(
                f"{what} returned a {type(loss).__name__} {shape}".rstrip(),
                expected="a scalar tensor computed from the outputs, a mean over the batch",
            )
        return loss
    outputs = output_tensors(student)
    spec = task.outputs[0] if task.outputs else None
    dim = class_dimension(spec, outputs[0], targets) if len(outputs) == 1 else None
    if dim is None or not _indexes(targets, outputs[0], dim):
        raise TaskError(
            f"task {task.name!r} has targets {targets.dtype} {list(targets.shape)} and no loss, "
            f"for outputs {[list(output.shape) for output in outputs]}",
            expected="class indices for one output of logits, which cross-entropy then scores",
            next_step="give the Task loss=..., or yield batches without targets",
        )
    with user_code(f"task {task.name!r}: cross-entropy with the training targets"):
        return F.cross_entropy(_logits(spec, outputs[0]).movedim(dim, 1), targets.long())


def feature_loss(student: Features, teacher: Features) -> Tensor:
    """Return the mean squared error between the two networks' features, summed over layers."""
    return torch.stack([F.mse_loss(student[name], teacher[name]) for name in student]).sum()


@contextmanager
def tapped(model: nn.Module, layers: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that holds each named layer's latest output; the hooks go with the block."""
    features: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            features[name] = output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def check_features(
    student: nn.Module, teacher: nn.Module, layers: tuple[str, ...], examples: Tensors
) -> None:
    """Raise ``UsageError`` naming the layers whose outputs cannot be compared.

    A layer must exist in both networks and give tensors of one shape; a pruned layer, whose
    channels went, does not. Runs both networks once, without gradients, in their present mode.
    """
    for model in (student, teacher):
        known = dict(model.named_modules())
        missing = [name for name in layers if name not in known or not name]
        if missing:
            near = near_names(missing[0], known)
            raise UsageError(
                f"the network has no layer {', '.join(map(repr, missing))} to match features of",
                next_step=f"did you mean {' or '.join(near)}?" if near else None,
            )
    with (
        tapped(student, layers) as ours,
        tapped(teacher, layers) as theirs,
        torch.no_grad(),
        user_code("the model on its example inputs"),
    ):
        student(*examples)
        teacher(*examples)
    differing = [name for name in layers if _shape(ours.get(name)) != _shape(theirs.get(name))]
    differing += [name for name in layers if _shape(ours.get(name)) is None]
    if differing:
        shapes = [f"{n}: {_shape(theirs.get(n))} -> {_shape(ours.get(n))}" for n in differing]
        raise UsageError(
            f"features cannot be matched, their shapes differ: {'; '.join(shapes)}",
            expected="layers that give a tensor of the same shape before and after pruning",
            next_step="leave these out of feature_layers",
        )


def _shape(feature: object) -> list[int] | None:
    return list(feature.shape) if isinstance(feature, Tensor) else None
