from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs_task import blobs
from planned import plan_of
from requesting import request_for
from shortcuts import IMAGES, resnet
from torch import Tensor, nn

from edgesdk.device import DeviceProfile
from edgesdk.document import read_json, to_json
from edgesdk.errors import UsageError
from edgesdk.plan import (
    AdaRound,
    BiasCorrection,
    Distil,
    Equalize,
    Factorize,
    Finetune,
    Plan,
    Prune,
    PrunedGroup,
    Qat,
    Quantize,
)
from edgesdk.stages import compression, preparation
from edgesdk.stages.compression import compress, model_key, trains
from edgesdk.stages.request import Request
from edgesdk.trace import trace

GROUP = PrunedGroup(layer="0", width_before=96, removed=tuple(range(48)))
PRUNE = Prune(ratio=0.5, channel_multiple=4, importance="taylor", groups=(GROUP,))
QAT = Qat(epochs=1, learning_rate=0.001, temperature=4.0, alpha=0.5, patience=1)
ADAROUND = AdaRound(iterations=10, positions=64)
DISTIL = Distil(epochs=1, learning_rate=0.01, temperature=4.0, alpha=0.5, patience=1)


@pytest.fixture
def request_blobs(reference_device: DeviceProfile, tmp_path: Path) -> Request:
    """The reference target names no quantizer; here it is taken to round as LiteRT's does."""
    request = request_for(blobs(), reference_device, tmp_path)
    assert request.quantizer is None
    return replace(request, quantizer="ai-edge-quantizer")


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
    assert trains((QAT,))
    assert not trains((Equalize(), ADAROUND, BiasCorrection()))


def test_a_models_key_is_of_what_was_done_to_its_weights(request_blobs: Request) -> None:
    def key(*steps: Any, recovered: bool = True, seed: int = 0) -> str:
        return model_key(request_blobs, plan_of(*steps, seed=seed), recovered=recovered)

    assert key(PRUNE, DISTIL) == key(PRUNE, DISTIL, Quantize(scheme="int8"))
    assert key(PRUNE, DISTIL, recovered=False) == key(PRUNE, recovered=False)
    # Only what is carried out in full moves batch norms, so the two are different networks.
    moving = replace(PRUNE, moves_batch_norms=True)
    assert key(moving, recovered=False) != key(moving, recovered=True)
    distinct = {
        key(),
        key(PRUNE),
        key(PRUNE, DISTIL),
        key(PRUNE, DISTIL, seed=1),
        key(PRUNE, replace(DISTIL, alpha=0.6)),
        key(replace(PRUNE, groups=(replace(GROUP, removed=(1,)),))),
    }
    assert len(distinct) == 6


def test_steps_are_carried_out_in_order_and_kept_one_by_one(
    request_blobs: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (PRUNE, DISTIL, Equalize(), ADAROUND, BiasCorrection(), QAT, Quantize(scheme="int8"))
    first = compress(request_blobs, plan_of(*steps)).module.state_dict()
    assert list((request_blobs.cache.root / "scratch" / "recover").iterdir()) == []
    assert len(list((request_blobs.cache.root / "recover").iterdir())) == 5
    assert first["0.weight"].shape == (48, 8)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("carried out again")

    for module, name in (
        (compression, "recover"), (preparation, "equalize"), (preparation, "adaround"),
        (preparation, "correct_biases"), (preparation, "qat"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, never)
    again = compress(request_blobs, plan_of(*steps)).module.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    shorter = compress(request_blobs, plan_of(*steps[:3])).module.state_dict()
    assert not torch.equal(shorter["0.weight"], first["0.weight"])
    with pytest.raises(AssertionError, match="carried out again"):
        compress(request_blobs, plan_of(PRUNE, DISTIL, ADAROUND))


def test_every_preparing_step_changes_weights_and_none_the_original(request_blobs: Request) -> None:
    original = {n: v.clone() for n, v in request_blobs.task.model.state_dict().items()}
    for step in (Equalize(), ADAROUND, BiasCorrection(), QAT):
        found = compress(request_blobs, plan_of(step)).module.state_dict()
        assert set(found) == set(original)
        assert not all(torch.equal(found[name], value) for name, value in original.items()), step
    state = request_blobs.task.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in original.items())


def test_later_pruning_counts_channels_of_the_network_as_it_is_then(
    request_blobs: Request,
) -> None:
    """Rounds of pruning and recovery: the second takes from the 48 channels the first left."""
    second = PrunedGroup(layer="0", width_before=48, removed=tuple(range(12)))
    again = replace(PRUNE, groups=(second,))
    plan = plan_of(PRUNE, DISTIL, again, DISTIL)
    for recovered in (True, False):
        found = compress(request_blobs, plan, recovered=recovered).module
        assert widths(found) == [36, 96, 4]
    one, two = (compress(request_blobs, plan).module.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(UsageError, match="48 output channels"):
        compress(request_blobs, plan_of(PRUNE, PRUNE), recovered=False)


def test_pruning_works_on_a_folded_network(request_blobs: Request) -> None:
    found = compress(request_blobs, plan_of(Equalize(), PRUNE, QAT)).module
    assert widths(found) == [48, 96, 4]


def test_rounding_steps_have_a_key_for_each_quantizer(request_blobs: Request) -> None:
    other = replace(request_blobs, quantizer="XNNPACK")
    for steps, same in (((Equalize(),), True), ((ADAROUND,), False), ((PRUNE, DISTIL), True)):
        keys = [model_key(r, plan_of(*steps), recovered=True) for r in (request_blobs, other)]
        assert (keys[0] == keys[1]) is same
    folded = [model_key(request_blobs, plan_of(*s), recovered=False) for s in ((), (QAT,))]
    assert folded[0] != folded[1]


@pytest.mark.parametrize("step", [ADAROUND, BiasCorrection(), QAT])
def test_rounding_for_a_quantizer_that_nobody_knows_is_refused(
    step: Any, request_blobs: Request
) -> None:
    unknown = replace(request_blobs, quantizer=None)
    with pytest.raises(UsageError, match=f"a step {step.kind}.*'numpy'.*is not known"):
        compress(unknown, plan_of(step, Quantize(scheme="int8")))
    compress(unknown, plan_of(Equalize()))


@pytest.fixture
def request_deep(reference_device: DeviceProfile, tmp_path: Path) -> Request:
    inputs = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(5))
    task = replace(
        blobs(),
        model=resnet((2, 2)),
        example_inputs=IMAGES,
        calibration=lambda: iter([(inputs,)]),
        training=None,
        evaluate=None,
    )
    return request_for(task, reference_device, tmp_path)


SHORTER = Prune(
    ratio=0.5,
    channel_multiple=4,
    importance="taylor",
    groups=(PrunedGroup(layer="conv1", width_before=8, removed=(0, 1, 2, 3)),),
    moves_batch_norms=True,
    removed_blocks=("stages.0.1", "stages.1.1"),
)


def test_a_plan_without_blocks_gives_a_network_without_them(
    request_deep: Request, tmp_path: Path
) -> None:
    """Also where a group is named by a layer of the block, and in a plan read from a file."""
    named_inside = replace(SHORTER.groups[0], layer="stages.0.1.conv2")
    plan = plan_of(SHORTER, Quantize(scheme="fp16"))
    (tmp_path / "plan.json").write_text(to_json(plan), encoding="utf-8")
    again = read_json(Plan, tmp_path / "plan.json")
    assert again == plan
    made = compress(request_deep, again).module
    other = compress(request_deep, plan_of(replace(SHORTER, groups=(named_inside,)))).module
    for module in (made, other):
        assert isinstance(module.get_submodule("stages.0.1"), nn.Identity)
        graph = trace(module, IMAGES, name="m")
        layers = {op.layer for op in graph.ops}
        assert not [name for name in layers if name.startswith(("stages.0.1", "stages.1.1"))]
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in made.state_dict().items()
    )
    whole = compress(request_deep, plan_of(replace(SHORTER, removed_blocks=()))).module
    assert sum(p.numel() for p in made.parameters()) < sum(p.numel() for p in whole.parameters())
    assert not torch.equal(
        made.get_buffer("stages.1.0.bn1.running_mean"),
        whole.get_buffer("stages.1.0.bn1.running_mean"),
    )


def test_shapes_alone_lack_the_blocks_too(request_deep: Request) -> None:
    plan = plan_of(SHORTER, Equalize())
    made = compress(request_deep, plan, recovered=False).module
    assert isinstance(made.get_submodule("stages.1.1"), nn.Identity)
    key, other = (
        model_key(request_deep, plan_of(step, Equalize()), recovered=False)
        for step in (SHORTER, replace(SHORTER, removed_blocks=()))
    )
    assert key != other


def test_a_plan_edited_to_name_a_block_that_cannot_go_is_refused(request_deep: Request) -> None:
    for name, said in (("stages.1.0", "no residual block"), ("stages.7", "did you mean")):
        with pytest.raises(UsageError, match=said):
            compress(request_deep, plan_of(replace(SHORTER, removed_blocks=(name,))))


SPLIT = Factorize(ranks={"2": 8})


def test_a_split_layer_is_two_before_anything_trains(
    request_blobs: Request, tmp_path: Path
) -> None:
    plan = plan_of(PRUNE, SPLIT, DISTIL, Quantize(scheme="fp16"))
    (tmp_path / "plan.json").write_text(to_json(plan), encoding="utf-8")
    again = read_json(Plan, tmp_path / "plan.json")
    assert again == plan
    assert again.ranks == {"2": 8}
    made = compress(request_blobs, again).module
    halves = made.get_submodule("2")
    assert [tuple(half.weight.shape) for half in halves] == [  # type: ignore[union-attr]
        (8, trained_width(made, "0")), (trained_width(made, "2.1"), 8),
    ]  # fmt: skip
    untrained = compress(request_blobs, plan_of(PRUNE, SPLIT)).module
    assert set(untrained.state_dict()) == set(made.state_dict())
    assert not torch.equal(made.get_parameter("2.0.weight"), untrained.get_parameter("2.0.weight"))
    second = compress(request_blobs, plan_of(PRUNE, SPLIT)).module
    assert all(
        torch.equal(value, second.state_dict()[name])
        for name, value in untrained.state_dict().items()
    )


def trained_width(module: nn.Module, layer: str) -> int:
    return len(module.get_parameter(f"{layer}.weight"))


def test_shapes_alone_have_the_layers_split_too(request_blobs: Request) -> None:
    plans = [plan_of(*steps, Equalize()) for steps in ((SPLIT,), ())]
    made = compress(request_blobs, plans[0], recovered=False).module
    assert tuple(made.get_parameter("2.0.weight").shape) == (8, 96)
    keys = [model_key(request_blobs, plan, recovered=False) for plan in plans]
    assert keys[0] != keys[1]
    # What the inputs show decides the weights that are used, the weights alone those of a shape.
    used = compress(request_blobs, plan_of(SPLIT)).module
    assert not torch.equal(made.get_parameter("2.0.weight"), used.get_parameter("2.0.weight"))


@pytest.mark.parametrize(
    ("ranks", "said"),
    [({"1": 3}, "no layer '1' to split"), ({"2": 96}, "cannot be split at rank 96")],
)
def test_a_plan_edited_to_split_what_cannot_be_is_refused(
    ranks: dict[str, int], said: str, request_blobs: Request
) -> None:
    with pytest.raises(UsageError, match=said):
        compress(request_blobs, plan_of(Factorize(ranks=ranks)))
