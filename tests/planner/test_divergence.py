import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.planner.divergence import measure_divergence, run_batches
from edgesdk.task import OutputSpec

LOGITS = OutputSpec(name="y", kind="logits")
PLAIN = OutputSpec(name="y")


def logits(samples: int = 16, classes: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(samples, classes, generator=torch.Generator().manual_seed(seed))


def test_nothing_changed_costs_nothing() -> None:
    for spec, share in ((LOGITS, 0.0), (PLAIN, None)):
        found = measure_divergence((logits(),), (logits(),), (spec,))
        assert found.loss == pytest.approx(0.0, abs=1e-12)
        assert found.disagreement == share


def test_the_loss_of_logits_is_the_kl_divergence_in_nats() -> None:
    wanted = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    got = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    by_hand = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 2
    found = measure_divergence((wanted,), (got,), (LOGITS,))
    assert found.loss == pytest.approx(by_hand, rel=1e-6)


def test_the_divergence_is_from_the_original() -> None:
    one, other = torch.tensor([[0.0, 5.0]]), torch.tensor([[0.0, 0.0]])
    there = measure_divergence((one,), (other,), (LOGITS,)).loss
    back = measure_divergence((other,), (one,), (LOGITS,)).loss
    assert there == pytest.approx(0.65290, abs=1e-4)
    assert back == pytest.approx(1.81357, abs=1e-4)


@given(st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(shift: float) -> None:
    found = measure_divergence((logits(),), (logits() + shift,), (LOGITS,))
    assert found.loss == pytest.approx(0.0, abs=1e-6)


@given(st.integers(0, 100), st.floats(0, 3))
def test_a_loss_is_never_negative(seed: int, strength: float) -> None:
    changed = logits() + strength * logits(seed=seed)
    assert measure_divergence((logits(),), (changed,), (LOGITS,)).loss >= 0


def test_disagreement_is_the_share_of_moved_winners() -> None:
    wanted = torch.eye(4)
    got = wanted.clone()
    got[3] = torch.tensor([1.0, 0.0, 0.0, 0.5])
    assert measure_divergence((wanted,), (got,), (LOGITS,)).disagreement == 0.25


def test_a_sample_disagrees_once_however_many_outputs_do() -> None:
    wanted, got = torch.eye(4), torch.eye(4).roll(1, dims=0)
    several = measure_divergence((wanted, wanted), (got, got), (LOGITS, LOGITS))
    assert several.disagreement == 1.0
    half = got.clone()
    half[:2] = wanted[:2]
    for changed in ((wanted, half), (half, wanted)):
        mixed = measure_divergence((wanted, wanted), changed, (LOGITS, LOGITS))
        assert mixed.disagreement == 0.5


def test_other_outputs_count_their_relative_squared_error() -> None:
    wanted, got = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]])
    found = measure_divergence((wanted,), (got,), (PLAIN,))
    assert found.loss == pytest.approx(1 / 25)
    assert found.disagreement is None
    scaled = measure_divergence((wanted * 1000,), (got * 1000,), (PLAIN,))
    assert scaled.loss == pytest.approx(found.loss)


def test_the_losses_of_all_outputs_add_up() -> None:
    wanted, got = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]])
    both = measure_divergence((wanted, logits(1)), (got, logits(1, seed=3)), (PLAIN, LOGITS))
    alone = measure_divergence((logits(1),), (logits(1, seed=3),), (LOGITS,))
    assert both.loss == pytest.approx(1 / 25 + alone.loss)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spec", [LOGITS, PLAIN], ids=["logits", "plain"])
def test_what_is_not_finite_ranks_last_and_is_still_a_number(bad: float, spec: OutputSpec) -> None:
    changed = logits()
    changed[7, 2] = bad
    found = measure_divergence((logits(),), (changed,), (spec,))
    assert found.loss == sys.float_info.max
    terrible = measure_divergence((logits(),), (-1e4 * logits(),), (spec,))
    assert terrible.loss < found.loss


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x.sum(1, keepdim=True)


def test_batches_are_run_in_order_and_joined() -> None:
    batches = [(torch.full((size, 2), float(size)),) for size in (1, 3, 2)]
    first, second = run_batches(Two(), batches)
    assert first[:, 0].tolist() == [2, 4, 4, 4, 3, 3]
    assert second.flatten().tolist() == [2, 6, 6, 6, 4, 4]
    assert not first.requires_grad
