from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs_task import blobs
from torch import Tensor, nn

from edgesdk.budget import Budget
from edgesdk.cache import Cache
from edgesdk.device import DeviceProfile
from edgesdk.effort import Effort
from edgesdk.plan import Distil, Finetune, Plan, Prune, PrunedGroup, Quantize
from edgesdk.progress import Silent
from edgesdk.stages import compression
from edgesdk.stages.compression import compress, model_key, trains
from edgesdk.stages.request import Request, resolve
from edgesdk.task import Task

GROUP = PrunedGroup(layer="0", width_before=96, removed=tuple(range(48)))
PRUNE = Prune(ratio=0.5, channel_multiple=4, importance="taylor", groups=(GROUP,))
DISTIL = Distil(epochs=1, learning_rate=0.01, temperature=4.0, alpha=0.5, patience=1)


def request_for(task: Task, device: DeviceProfile, root: Path) -> Request:
    return resolve(
        task,
        device=device,
        target=None,
        budget=Budget(),
        effort=Effort(),
        accelerator="cpu",
        cache=Cache(root / "cache"),
        progress=Silent(),
        needs_toolchain=False,
    )


def plan_of(*steps: Any, seed: int = 0) -> Plan:
    return Plan(
        task="blobs",
        task_key="",
        device="",
        target="",
        option="",
        scheme="fp16",
        steps=steps,
        steps_sha256="",
        predicted={},
        baseline={},
        reasons=(),
        rejected=(),
        front=(),
        prices=(),
        gap=0.0,
        seed=seed,
    )


@pytest.fixture
def request_blobs(reference_device: DeviceProfile, tmp_path: Path) -> Request:
    return request_for(blobs(), reference_device, tmp_path)


def widths(module: nn.Module) -> list[int]:
    return [m.out_features for m in module.modules() if isinstance(m, nn.Linear)]


def test_no_steps_give_the_model_itself(request_blobs: Request) -> None:
    model = compress(request_blobs, plan_of(Quantize(scheme="fp16")))
    state, wanted = model.module.state_dict(), request_blobs.task.model.state_dict()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert (model.scheme, model.module.training) == ("fp16", False)
    assert len(model.calibration) == 2


def test_pruning_makes_a_smaller_module_and_leaves_the_original(request_blobs: Request) -> None:
    model = compress(request_blobs, plan_of(PRUNE, DISTIL), recovered=False)
    assert widths(model.module) == [48, 96, 4]
    assert widths(request_blobs.task.model) == [96, 96, 4]


def test_recovered_weights_are_kept_and_trained_once(
    request_blobs: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(PRUNE, DISTIL)
    first = compress(request_blobs, plan).module.state_dict()
    assert list((request_blobs.cache.root / "scratch" / "recover").iterdir()) == []
    untrained = compress(request_blobs, plan, recovered=False).module.state_dict()
    assert not all(torch.equal(first[name], untrained[name]) for name in first)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(compression, "recover", never)
    again = compress(request_blobs, plan).module.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    for other in (replace(plan, seed=1), plan_of(PRUNE, replace(DISTIL, epochs=2))):
        with pytest.raises(AssertionError, match="trained again"):
            compress(request_blobs, other)


class Tied(nn.Module):
    """Two layers that share one weight, as language models' embeddings and heads do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).relu()).relu())


def test_tied_weights_are_kept_too(reference_device: DeviceProfile, tmp_path: Path) -> None:
    task = replace(blobs(), model=Tied(), finetune=lambda student, _: student)
    request = request_for(task, reference_device, tmp_path)
    for _ in range(2):
        module = compress(request, plan_of(Finetune())).module
        state = module.state_dict()
        assert torch.equal(state["first.weight"], task.model.state_dict()["first.weight"])
        assert torch.equal(state["first.weight"], state["second.weight"])


def test_only_training_steps_train() -> None:
    assert not trains((PRUNE, Quantize(scheme="int8")))
    assert trains((PRUNE, DISTIL))
    assert trains((Finetune(),))


def test_a_models_key_is_of_what_was_done_to_its_weights(request_blobs: Request) -> None:
    def key(*steps: Any, recovered: bool = True, seed: int = 0) -> str:
        return model_key(request_blobs, plan_of(*steps, seed=seed), recovered=recovered)

    assert key(PRUNE, DISTIL) == key(PRUNE, DISTIL, Quantize(scheme="int8"))
    assert key(PRUNE, DISTIL, recovered=False) == key(PRUNE, recovered=False)
    distinct = {
        key(),
        key(PRUNE),
        key(PRUNE, DISTIL),
        key(PRUNE, DISTIL, seed=1),
        key(PRUNE, replace(DISTIL, alpha=0.6)),
        key(replace(PRUNE, groups=(replace(GROUP, removed=(1,)),))),
    }
    assert len(distinct) == 6
