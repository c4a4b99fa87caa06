"""Distillation: the formula, what recovers, what resumes, what goes wrong and how it is said."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.compress.distil import default_distil, distil, finetune, recover
from edgesdk.compress.distil_loss import class_dimension, distillation_loss, soft_loss
from edgesdk.compress.evaluation import model_predict
from edgesdk.compress.training import EpochReport, count_training, learning_rate_factor
from edgesdk.errors import OutputError, TaskError, UsageError
from edgesdk.plan import Distil, Finetune
from edgesdk.task import Batch, OutputSpec, Predict, Split, Task, output_tensors
from edgesdk.task_key import weights_sha256

CPU = torch.device("cpu")
STEP = Distil(epochs=6, learning_rate=1e-2, temperature=3.0, alpha=0.8, patience=6)
SAMPLES, CLASSES, FEATURES = 256, 4, 12


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Net(nn.Module):
    """A classifier with batch norm whose hidden width is what pruning would change."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(FEATURES, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.body(x)))
        return logits


def cluster(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points around class centres that overlap, so that a network has something to learn."""
    generator = torch.Generator().manual_seed(7)
    centres = torch.randn(CLASSES, FEATURES, generator=generator)
    generator.manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return centres[labels] + 0.7 * torch.randn(count, FEATURES, generator=generator), labels


def accuracy(predict: Predict, split: Split) -> float:
    points, labels = cluster(200, seed=1 if split == "validation" else 2)
    (logits,) = output_tensors(predict(points))
    return float((logits.argmax(1) == labels).float().mean())


def batches(*, labelled: bool = True) -> Callable[[], Iterator[Batch]]:
    points, labels = cluster(SAMPLES, seed=0)

    def training() -> Iterator[Batch]:
        for chosen in torch.split(torch.randperm(SAMPLES), 32):
            yield Batch(inputs=(points[chosen],), targets=labels[chosen] if labelled else None)

    return training


def network(width: int, seed: int) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(width).eval()


@pytest.fixture(scope="module")
def teacher() -> Net:
    """A network trained on the clusters until it is good at them."""
    model = network(24, seed=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(6):
        for batch in batches()():
            assert batch.targets is not None
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(*batch.inputs), batch.targets).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture
def task(teacher: Net) -> Task:
    return Task(
        name="clusters",
        model=teacher,
        example_inputs=(torch.zeros(1, FEATURES),),
        outputs=(OutputSpec(name="logits", kind="logits"),),
        training=batches(),
        evaluate=accuracy,
    )


def narrowed(teacher: Net, width: int) -> Net:
    """The teacher with only its first hidden channels: pruned, and the worse for it."""
    student = network(width, seed=0)
    student.load_state_dict(
        {
            name: teacher.state_dict()[name][tuple(slice(0, size) for size in tensor.shape)]
            for name, tensor in student.state_dict().items()
        }
    )
    return student


def run(task: Task, student: nn.Module, step: Distil = STEP, **kwargs: object) -> nn.Module:
    arguments: dict[str, object] = {"device": CPU, "seed": 0} | kwargs
    return distil(student, task.model, task, step, **arguments)  # type: ignore[arg-type]


def score(model: nn.Module) -> float:
    return accuracy(model_predict(model, CPU), "test")


# The loss


def by_hand(student: list[float], teacher: list[float], temperature: float) -> float:
    """T^2 times the divergence of one sample's softened distributions, with plain arithmetic."""

    def softened(logits: list[float]) -> list[float]:
        powers = [math.exp(logit / temperature) for logit in logits]
        return [power / sum(powers) for power in powers]

    p, q = softened(teacher), softened(student)
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-8, 8)] * 6), min_size=1, max_size=4),
    st.floats(0.5, 10),
)
def test_soft_loss_is_hintons_formula(rows: list[tuple[float, ...]], temperature: float) -> None:
    student, teacher = ([list(row[i : i + 3]) for row in rows] for i in (0, 3))
    expected = sum(by_hand(s, t, temperature) for s, t in zip(student, teacher, strict=True))
    found = soft_loss(
        torch.tensor(student, dtype=torch.float64),
        torch.tensor(teacher, dtype=torch.float64),
        temperature=temperature,
        dim=1,
    )
    assert float(found) == pytest.approx(expected / len(rows), rel=1e-9, abs=1e-12)


def test_gradient_approaches_logit_matching_at_high_temperature() -> None:
    # Hinton et al. 2015, eq. 4: for logits of zero mean, (1/N)(z - v) up to the T^2 factor.
    teacher = torch.tensor([[1.0, -2.0, 1.0]], dtype=torch.float64)
    student = torch.tensor([[0.5, 0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    soft_loss(student, teacher, temperature=1000.0, dim=1).backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, (student - teacher).detach() / 3, rtol=2e-3)


def test_loss_weighs_task_and_teacher_by_alpha(task: Task) -> None:
    student, teacher = torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([[0.0, 1, 0, 3]])
    targets = torch.tensor([3])
    hard = -math.log(1 / (3 + math.exp(2)))
    soft = by_hand([2, 0, 0, 0], [0, 1, 0, 3], STEP.temperature)
    found = distillation_loss(task, STEP, student, teacher, targets)
    assert float(found) == pytest.approx(0.2 * hard + 0.8 * soft, rel=1e-5)


def test_loss_without_targets_is_the_soft_loss_alone(task: Task) -> None:
    student, teacher = torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([[0.0, 1, 0, 3]])
    found = distillation_loss(task, STEP, student, teacher, None)
    soft = by_hand([2, 0, 0, 0], [0, 1, 0, 3], STEP.temperature)
    assert float(found) == pytest.approx(soft, rel=1e-5)


def test_probabilities_are_compared_as_the_logits_they_came_from(task: Task) -> None:
    told = replace(task, outputs=(OutputSpec(name="p", kind="probabilities"),))
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    targets = torch.tensor([0, 1, 2, 3, 0])
    of_logits = distillation_loss(task, STEP, student, teacher, targets)
    of_probabilities = distillation_loss(
        told, STEP, student.softmax(1), teacher.softmax(1), targets
    )
    assert float(of_probabilities) == pytest.approx(float(of_logits), rel=1e-4)


def test_regression_is_compared_by_squared_error(task: Task) -> None:
    told = replace(
        task,
        outputs=(OutputSpec(name="y", kind="tensor"),),
        loss=lambda outputs, targets: (outputs - targets).abs().mean(),
    )
    student = torch.tensor([[1.0], [2.0]], requires_grad=True)
    found = distillation_loss(
        told, STEP, student, torch.tensor([[2.0], [4.0]]), torch.tensor([[0.0], [0.0]])
    )
    assert float(found) == pytest.approx(0.2 * 1.5 + 0.8 * 2.5)


def test_every_output_counts(task: Task) -> None:
    told = replace(
        task, outputs=(OutputSpec(name="a", kind="logits"), OutputSpec(name="b", kind="tensor"))
    )
    student = (torch.zeros(2, 4), torch.zeros(2, 3))
    teacher = (torch.zeros(2, 4), torch.ones(2, 3))
    assert float(distillation_loss(told, STEP, student, teacher, None)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("spec", "shape", "targets", "expected"),
    [
        (OutputSpec(name="o", kind="logits"), (8, 10), None, 1),
        (OutputSpec(name="o", kind="logits"), (8, 10, 6, 6), None, 1),
        (OutputSpec(name="o", kind="logits"), (8, 20, 50), None, 2),
        (OutputSpec(name="o", kind="logits", labels=("a", "b", "c")), (8, 3, 50), None, 1),
        (OutputSpec(name="o", kind="logits"), (8, 5, 50), (8, 50), 1),
        (OutputSpec(name="o", kind="logits"), (8, 1), None, None),
        (OutputSpec(name="o", kind="logits"), (8,), None, None),
        (OutputSpec(name="o", kind="tensor"), (8, 10), (8,), None),
        (None, (8, 10), (8,), 1),
        (None, (8, 10), None, None),
        (None, (8, 10), (8, 10), None),
    ],
)
def test_class_dimension(
    spec: OutputSpec | None,
    shape: tuple[int, ...],
    targets: tuple[int, ...] | None,
    expected: int | None,
) -> None:
    indices = None if targets is None else torch.zeros(targets, dtype=torch.long)
    assert class_dimension(spec, torch.zeros(shape), indices) == expected


def test_targets_that_nothing_can_score_are_a_task_error(task: Task) -> None:
    with pytest.raises(TaskError, match=r"no loss.*Next: give the Task loss="):
        distillation_loss(task, STEP, torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, 4))
    out_of_range = torch.tensor([0, 9])
    with pytest.raises(TaskError, match=r"cross-entropy.*IndexError.*Target 9"):
        distillation_loss(task, STEP, torch.zeros(2, 4), torch.zeros(2, 4), out_of_range)
    whole = replace(task, loss=lambda outputs, _: outputs.sum(1))
    with pytest.raises(TaskError, match=r"loss\(outputs, targets\) returned a Tensor shape \[2\]"):
        distillation_loss(whole, STEP, torch.ones(2, 4), torch.zeros(2, 4), torch.zeros(2))


def test_schedule_warms_up_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, 200) for step in range(200)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(a > b for a, b in itertools.pairwise(factors[9:]))
    assert 0 < factors[-2] < 1e-3
    assert [learning_rate_factor(step, 1) for step in range(1)] == [1.0]


# Training


def test_a_narrowed_network_recovers(task: Task, teacher: Net) -> None:
    student = narrowed(teacher, 6)
    before, whole = score(student), score(teacher)
    weights = weights_sha256(student), weights_sha256(teacher)
    recovered = run(task, student)
    assert whole > 0.9
    assert before < whole - 0.1
    assert score(recovered) > whole - 0.05
    assert (weights_sha256(student), weights_sha256(teacher)) == weights
    assert not recovered.training
    assert all(parameter.grad is None for parameter in recovered.parameters())
    assert all(p.requires_grad for p in [*recovered.parameters(), *teacher.parameters()])


def test_the_teacher_is_enough(task: Task, teacher: Net) -> None:
    unlabelled = replace(task, training=batches(labelled=False), evaluate=None)
    student = narrowed(teacher, 6)
    assert score(run(unlabelled, student)) > score(student) + 0.1


def test_same_seed_same_weights_and_the_caller_keeps_its_random_state(task: Task) -> None:
    student = network(6, seed=0)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = run(task, student)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert weights_sha256(run(task, student)) == weights_sha256(first)
    assert weights_sha256(run(task, student, seed=1)) != weights_sha256(first)


def test_frozen_weights_stay(task: Task, teacher: Net) -> None:
    student = narrowed(teacher, 6)
    student.body.requires_grad_(False)
    recovered = run(replace(task, evaluate=None), student)
    assert isinstance(recovered, Net)
    assert torch.equal(recovered.body[0].weight, student.body[0].weight)
    assert not torch.equal(recovered.head.weight, student.head.weight)
    with pytest.raises(TaskError, match="every weight of the model is frozen"):
        run(task, student.requires_grad_(False))


def test_the_best_epoch_is_kept_and_patience_ends_the_run(task: Task) -> None:
    scores = iter([0.1, 0.2, 0.9, 0.3, 0.9, 0.3, 0.2])
    reports: list[EpochReport] = []
    snapshots: list[str] = []

    def evaluate(predict: Predict, split: Split) -> float:
        assert split == "validation"
        outputs = output_tensors(predict(cluster(8, seed=4)[0]))[0]
        snapshots.append(str(outputs.tolist()))
        return next(scores)

    watched = replace(task, evaluate=evaluate)
    student = network(6, seed=0)
    recovered = run(
        watched,
        student,
        replace(STEP, epochs=50, patience=4),
        on_epoch=reports.append,
    )
    # Epoch 0 is the student as given; the tie at epoch 4 goes to the later weights.
    assert [report.epoch for report in reports] == list(range(7))
    assert reports[-1].best_epoch == 4
    assert reports[-1].note == "stopped early: nothing better in 4 epochs"
    kept = output_tensors(model_predict(recovered, CPU)(cluster(8, seed=4)[0]))[0]
    assert str(kept.tolist()) == snapshots[4]


def test_recovery_never_ends_below_the_student_it_was_given(task: Task, teacher: Net) -> None:
    scores = iter([0.9, 0.1, 0.1])
    worse = replace(task, evaluate=lambda _predict, _split: next(scores))
    recovered = run(worse, teacher, replace(STEP, epochs=2))
    assert weights_sha256(recovered) == weights_sha256(teacher)


class _Killed(BaseException):
    """Stands for a signal that ends the process."""


@pytest.mark.parametrize("killed_after", [0, 1, 4])
def test_a_resumed_run_ends_in_the_same_weights(
    task: Task, tmp_path: Path, killed_after: int
) -> None:
    student, checkpoint = network(6, seed=0), tmp_path / "runs" / "distil"
    uninterrupted = weights_sha256(run(task, student))

    def kill(report: EpochReport) -> None:
        if report.epoch == killed_after:
            raise _Killed

    with pytest.raises(_Killed):
        run(task, student, checkpoint=checkpoint, on_epoch=kill)
    torch.manual_seed(123)
    reports: list[EpochReport] = []
    resumed = run(task, student, checkpoint=checkpoint, on_epoch=reports.append)
    assert weights_sha256(resumed) == uninterrupted
    if killed_after:
        assert reports[0].epoch == killed_after + 1
        assert reports[0].note == f"resumed after epoch {killed_after}"
    assert weights_sha256(run(task, student, checkpoint=checkpoint)) == uninterrupted
    assert [path.name for path in checkpoint.parent.iterdir()] == ["distil"]


def test_a_checkpoint_that_is_not_this_runs_is_not_used(task: Task, tmp_path: Path) -> None:
    student, checkpoint = network(6, seed=0), tmp_path / "distil"
    expected = weights_sha256(run(task, student))
    run(task, student, seed=1, checkpoint=checkpoint)
    notes: list[str] = []
    found = run(
        task, student, checkpoint=checkpoint, on_epoch=lambda report: notes.append(report.note)
    )
    assert weights_sha256(found) == expected
    assert any("started from the beginning" in note for note in notes)


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_damaged_checkpoint_is_not_used(task: Task, tmp_path: Path, damage: bytes | None) -> None:
    student, checkpoint = network(6, seed=0), tmp_path / "distil"
    expected = weights_sha256(run(task, student, checkpoint=checkpoint))
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    notes: list[str] = []
    found = run(
        task, student, checkpoint=checkpoint, on_epoch=lambda report: notes.append(report.note)
    )
    assert weights_sha256(found) == expected
    assert any("cannot be read" in note for note in notes)


def test_a_checkpoint_that_cannot_be_written_is_an_output_error(task: Task, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"checkpoint .* cannot be written"):
        run(task, network(6, seed=0), checkpoint=tmp_path / "file" / "distil")


# Divergence


def failing_loss(times: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that is NaN the first ``times`` times that it comes to the third batch of epoch 2."""
    calls, left = iter(range(10**6)), [times]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(outputs, targets)
        if next(calls) >= 10 and left[0]:
            left[0] -= 1
            return value * math.nan
        return value

    return loss


def test_a_diverging_epoch_is_repeated_at_half_the_learning_rate(task: Task, teacher: Net) -> None:
    reports: list[EpochReport] = []
    student = narrowed(teacher, 6)
    recovered = run(replace(task, loss=failing_loss(2)), student, on_epoch=reports.append)
    assert [report.epoch for report in reports] == [0, 1, 2, 2, 2, 3, 4, 5, 6]
    assert [report.learning_rate for report in reports[2:5]] == [5e-3, 2.5e-3, 2.5e-3]
    assert reports[2].loss is None
    assert "the loss was nan" in reports[2].note
    assert "half the learning rate" in reports[2].note
    assert score(recovered) > score(student) + 0.1


def test_divergence_that_does_not_end_stops_with_the_last_good_weights(
    task: Task, tmp_path: Path
) -> None:
    told = replace(task, loss=failing_loss(10**6))
    student, reports = network(6, seed=0), list[EpochReport]()
    checkpoint = tmp_path / "distil"
    recovered = run(told, student, on_epoch=reports.append, checkpoint=checkpoint)
    assert [report.epoch for report in reports] == [0, 1, 2, 2, 2, 2, 2]
    assert "halved 4 times; the weights of epoch 1 are kept" in reports[-1].note
    assert all(bool(torch.isfinite(p).all()) for p in recovered.parameters())
    assert score(recovered) > score(student)
    again = run(told, student, checkpoint=checkpoint)
    assert weights_sha256(again) == weights_sha256(recovered)


def test_training_data_with_nan_is_named_not_blamed_on_the_learning_rate(task: Task) -> None:
    def training() -> Iterator[Batch]:
        yield from batches()()
        yield Batch(inputs=(torch.full((4, FEATURES), math.nan),), targets=torch.zeros(4).long())

    with pytest.raises(TaskError, match="training batch 8 contains NaN"):
        run(replace(task, training=training), network(6, seed=0))


# Features


def test_feature_matching_draws_the_features_together(task: Task, teacher: Net) -> None:
    student = network(24, seed=8)
    points = cluster(64, seed=5)[0]

    def distance(model: nn.Module) -> float:
        assert isinstance(model, Net)
        with torch.no_grad():
            return float((model.body(points) - teacher.body(points)).square().mean())

    matched = run(task, student, replace(STEP, feature_weight=10.0, feature_layers=("body",)))
    assert distance(matched) < 0.5 * distance(run(task, student))
    assert not any(module._forward_hooks for module in [*matched.modules(), *teacher.modules()])


def test_features_whose_shapes_differ_are_named(task: Task, teacher: Net) -> None:
    student = narrowed(teacher, 6)
    step = replace(STEP, feature_weight=1.0, feature_layers=("body.3", "head"))
    with pytest.raises(UsageError, match=r"body\.3: \[1, 24\] -> \[1, 6\]") as caught:
        run(task, student, step)
    assert "head" not in str(caught.value)
    unknown = replace(STEP, feature_weight=1.0, feature_layers=("boddy",))
    with pytest.raises(UsageError, match="did you mean body"):
        run(task, student, unknown)


# What the user can get wrong


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"temperature": -1.0},
        {"alpha": 1.5},
        {"patience": 0},
        {"feature_weight": 1.0},
        {"feature_layers": ("body",)},
    ],
)
def test_a_step_that_cannot_be_is_a_usage_error(task: Task, change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        run(task, network(6, seed=0), replace(STEP, **change))  # type: ignore[arg-type]


def with_nan(student: nn.Module, _teacher: nn.Module) -> nn.Module:
    next(student.parameters()).data.fill_(math.nan)
    return student


def raising(*_: object) -> float:
    raise KeyError("no such column")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("training", r"training\(\) raised KeyError"),
        ("loss", r"loss\(outputs, targets\) raised KeyError"),
        ("evaluate", r"evaluate\(predict, 'validation'\) raised KeyError"),
    ],
)
def test_user_code_that_raises_is_named(task: Task, field: str, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        run(replace(task, **{field: raising}), network(6, seed=0))  # type: ignore[arg-type]
    assert "test_distil.py, line" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_training_data_that_is_missing_empty_or_used_up(task: Task) -> None:
    with pytest.raises(TaskError, match="no training data"):
        run(replace(task, training=None), network(6, seed=0))
    with pytest.raises(TaskError, match="yielded no samples"):
        run(replace(task, training=lambda: []), network(6, seed=0))
    once = batches()()
    with pytest.raises(TaskError, match="yielded no samples in epoch 1, and 8 batches before"):
        run(replace(task, training=lambda: once), network(6, seed=0))


def test_a_batch_the_model_cannot_train_on_is_named(task: Task) -> None:
    single = replace(task, training=lambda: [Batch(inputs=(torch.zeros(1, FEATURES),))])
    with pytest.raises(TaskError, match="the model on training batch 0 raised ValueError"):
        run(single, network(6, seed=0))


# The default, and the user's own recovery


@pytest.mark.parametrize(("samples", "epochs"), [(10, 60), (1_000, 60), (6_000, 10), (80_000, 3)])
def test_default_epochs_keep_the_number_of_sample_visits(
    task: Task, samples: int, epochs: int
) -> None:
    shape = (samples, FEATURES)
    sized = replace(task, training=lambda: [Batch(inputs=(torch.zeros(shape),))])
    _, counted = count_training(sized)
    assert default_distil(sized, samples=counted, sample_visits=60_000).epochs == epochs


@pytest.mark.parametrize(
    ("norm", "learning_rate"),
    [(nn.BatchNorm1d(4), 5e-3), (nn.Identity(), 1e-3), (nn.LayerNorm(4), 1e-4)],
)
def test_default_learning_rate_goes_by_the_norm(
    task: Task, norm: nn.Module, learning_rate: float
) -> None:
    normed = replace(task, model=nn.Sequential(nn.Linear(FEATURES, 4), norm))
    assert default_distil(normed, samples=9, sample_visits=9).learning_rate == learning_rate


def test_recover_runs_the_tasks_own_finetune(task: Task, teacher: Net) -> None:
    student = narrowed(teacher, 6)

    def double(pupil: nn.Module, guide: nn.Module) -> nn.Module:
        assert pupil is not student
        assert guide is not teacher
        assert isinstance(pupil, Net)
        pupil.head.weight.data *= 2
        return pupil.train()

    own = replace(task, finetune=double)
    recovered = recover(student, teacher, own, Finetune(), device=CPU, seed=0)
    assert isinstance(recovered, Net)
    assert torch.equal(recovered.head.weight, 2 * student.head.weight)
    assert not recovered.training
    distilled = recover(student, teacher, own, STEP, device=CPU, seed=0)
    assert weights_sha256(distilled) == weights_sha256(run(task, student))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (None, "has none"),
        (raising, r"finetune\(student, teacher\) raised KeyError"),
        (lambda *_: None, "returned a NoneType"),
        (with_nan, "contain NaN"),
        (lambda *_: nn.Linear(FEATURES, CLASSES + 1), r"shapes \[\[1, 5\]\]"),
        (lambda *_: nn.Linear(3, CLASSES), "the model on its example inputs raised RuntimeError"),
    ],
)
def test_a_finetune_that_cannot_be_used(
    task: Task, function: Callable[..., nn.Module] | None, message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        finetune(network(6, 0), task.model, replace(task, finetune=function), device=CPU, seed=0)
