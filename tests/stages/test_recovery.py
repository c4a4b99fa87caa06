from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from blobs_task import blobs

from edgesdk.budget import Budget
from edgesdk.cache import Cache
from edgesdk.device import DeviceProfile
from edgesdk.effort import Effort
from edgesdk.plan import Distil, Finetune
from edgesdk.progress import Silent
from edgesdk.stages import recovery
from edgesdk.stages.recovery import Recoverer
from edgesdk.stages.request import resolve
from edgesdk.stages.rungs import climb, trained_step, why_no_more
from edgesdk.task import Task

Asking = Callable[..., Recoverer]


@pytest.fixture
def asking(reference_device: DeviceProfile, tmp_path: Path) -> Asking:
    def ask(effort: Effort, task: Task | None = None) -> Recoverer:
        request = resolve(
            task or blobs(),
            device=reference_device,
            target=None,
            budget=Budget(),
            effort=effort,
            accelerator="cpu",
            cache=Cache(tmp_path),
            progress=Silent(),
            needs_toolchain=False,
        )
        return Recoverer(request)

    return ask


@pytest.fixture
def one_second_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "sample_seconds", lambda *_: 1.0 / (1.3 * 512))
    monkeypatch.setattr(recovery, "count_training", lambda _: (8, 512))


def epochs(recoverer: Recoverer) -> int:
    step = recoverer.recovery().step
    assert isinstance(step, Distil)
    return step.epochs


def test_quick_trains_nothing_and_says_so(asking: Asking) -> None:
    found = asking(Effort(name="quick")).recovery()
    assert found.step is None
    assert "quick" in found.reason


def test_thorough_trains_longer_than_standard(asking: Asking) -> None:
    standard, thorough = (epochs(asking(Effort(name=n))) for n in ("standard", "thorough"))  # type: ignore[arg-type]
    assert thorough > standard


def test_the_tasks_own_finetune_comes_first(asking: Asking) -> None:
    task = replace(blobs(), finetune=lambda student, teacher: student)
    assert asking(Effort(), task).recovery().step == Finetune()


def test_without_data_nothing_is_recovered(asking: Asking) -> None:
    found = asking(Effort(), replace(blobs(), training=None)).recovery()
    assert found.step is None
    assert "no training data" in found.reason


@pytest.mark.usefixtures("one_second_an_epoch")
def test_time_bounds_the_epochs_and_what_is_spent_counts(asking: Asking) -> None:
    recoverer = asking(Effort(seconds=7.5))
    assert epochs(recoverer) == 7
    recoverer.spent_s = 4.0
    assert epochs(recoverer) == 3
    recoverer.spent_s = 7.0
    found = recoverer.recovery()
    assert found.step is None
    assert "too short" in found.reason


@pytest.mark.usefixtures("one_second_an_epoch")
def test_time_bounds_training_with_rounding_simulated_too(asking: Asking) -> None:
    recoverer = asking(Effort(seconds=7.5))
    request = replace(recoverer.request, quantizer="XNNPACK")
    step = trained_step(request, recoverer)
    assert step is not None
    assert (step.epochs, step.patience) == (7, 3)
    recoverer.spent_s = 7.0
    assert trained_step(request, recoverer) is None
    assert "too short" in why_no_more(request, recoverer)
    assert [rung.trains for rung in climb(request, recoverer)] == [False, False]
    recoverer.spent_s = 7.5
    assert [rung.trains for rung in climb(request, recoverer)] == [False]


def test_training_with_rounding_is_timed_with_rounding(asking: Asking) -> None:
    recoverer = asking(Effort(seconds=3600))
    request = replace(recoverer.request, quantizer="XNNPACK")
    assert trained_step(request, Recoverer(request)) is not None


@pytest.mark.usefixtures("one_second_an_epoch")
def test_enough_time_changes_nothing(asking: Asking) -> None:
    assert epochs(asking(Effort(seconds=1e6))) == epochs(asking(Effort()))


def test_time_is_counted_also_when_training_fails(asking: Asking) -> None:
    recoverer = asking(Effort())
    with pytest.raises(RuntimeError), recoverer.spending():
        raise RuntimeError
    assert recoverer.spent_s > 0


def test_an_epoch_is_really_timed(asking: Asking) -> None:
    """A second is far more than this network needs for an epoch: training is planned."""
    assert epochs(asking(Effort(seconds=3600))) >= 1
    assert asking(Effort(seconds=1e-9)).recovery().step is None
