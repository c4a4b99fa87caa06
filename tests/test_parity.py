import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgesdk.artifact import Check, Parity
from edgesdk.errors import ParityError
from edgesdk.host_runtime import HostRuntime
from edgesdk.parity import MINIMUM_SQNR_DB, compare, follows, gate, sqnr_db
from edgesdk.scheme import SCHEMES, Scheme
from edgesdk.task import OutputSpec

NUMPY = HostRuntime(name="numpy")
LOGITS = (OutputSpec(name="y", kind="logits"),)
TENSOR = (OutputSpec(name="y"),)


def outputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def compared(reference: Tensor, actual: Tensor, *checks: Check) -> Parity:
    return compare((reference,), (actual,), LOGITS, checks, runtime=NUMPY)


def test_the_ratio_is_ten_log_of_signal_over_noise() -> None:
    reference = torch.tensor([[3.0, 4.0]])  # energy 25
    actual = torch.tensor([[3.0, 4.5]])  # noise 0.25
    assert sqnr_db((reference,), (actual,)) == pytest.approx(10 * math.log10(25 / 0.25))


def test_the_ratio_is_over_all_outputs_together() -> None:
    references = (torch.tensor([[3.0]]), torch.tensor([[4.0]]))
    actuals = (torch.tensor([[3.0]]), torch.tensor([[4.5]]))
    assert sqnr_db(references, actuals) == pytest.approx(20.0)


@given(st.floats(min_value=-100, max_value=20))
def test_noise_of_a_known_power_gives_its_ratio(decibels: float) -> None:
    reference = outputs(64, 10)
    noise = torch.randn(64, 10, generator=torch.Generator().manual_seed(2))
    signal = (reference - reference.mean(0)).norm()
    noise *= signal / noise.norm() * 10 ** (decibels / 20)
    assert sqnr_db((reference,), (reference + noise,)) == pytest.approx(-decibels, abs=0.01)


def test_equal_outputs_reach_the_cap() -> None:
    assert sqnr_db((outputs(4, 3),), (outputs(4, 3),)) == 200.0
    assert sqnr_db((torch.zeros(4, 3),), (torch.zeros(4, 3),)) == 200.0


def test_silence_answered_with_noise_is_as_bad_as_it_gets() -> None:
    found = sqnr_db((torch.zeros(4, 3),), (outputs(4, 3),))
    assert found is not None
    assert found < -100


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_single_number_that_is_not_finite_has_no_ratio(bad: float) -> None:
    actual = outputs(64, 10)
    actual[63, 9] = bad
    assert sqnr_db((outputs(64, 10),), (actual,)) is None
    parity = compared(outputs(64, 10), actual)
    with pytest.raises(ParityError, match="not finite"):
        gate(parity, "int8")


@pytest.mark.parametrize("bad_at", [0, 1])
def test_a_bad_number_in_any_output_is_caught(bad_at: int) -> None:
    references = (outputs(8, 4), outputs(8, 4))
    actuals = [outputs(8, 4), outputs(8, 4)]
    actuals[bad_at][3, 2] = math.nan
    parity = compare(references, tuple(actuals), TENSOR * 2, (), runtime=NUMPY)
    with pytest.raises(ParityError):
        gate(parity, "int8")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_faithful_file_passes_with_its_figures(scheme: Scheme) -> None:
    reference = outputs(64, 10)
    parity = compared(reference, reference.clone())
    gate(parity, scheme)
    assert (parity.status, parity.runtime, parity.samples) == ("verified", "numpy", 64)
    assert (parity.sqnr_db, parity.maximum_error, parity.top1_agreement) == (200.0, 0.0, 1.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_has_its_own_least_ratio(scheme: Scheme) -> None:
    reference = outputs(64, 10)
    minimum = MINIMUM_SQNR_DB[scheme]
    noise = torch.randn(64, 10, generator=torch.Generator().manual_seed(2))
    noise *= reference.norm() / noise.norm()
    for margin_db, passes in ((0.1, True), (-0.1, False)):
        parity = compared(reference, reference + noise * 10 ** (-(minimum + margin_db) / 20))
        if passes:
            gate(parity, scheme)
        else:
            with pytest.raises(ParityError, match=f"at least {minimum:.0f} dB") as caught:
                gate(parity, scheme)
            assert caught.value.exit_code == 4


def test_wider_schemes_are_held_to_more() -> None:
    assert MINIMUM_SQNR_DB["fp32"] > MINIMUM_SQNR_DB["fp16"] > MINIMUM_SQNR_DB["int8"] > 3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "wrong",
    [
        lambda y: y.mean(0, keepdim=True).expand_as(y).clone(),
        torch.zeros_like,
        lambda y: y.roll(1, dims=0),
        lambda y: y.roll(1, dims=1),
        lambda y: y.transpose(1, 2).contiguous(),
        lambda y: -y,
        lambda y: y * 3,
        lambda y: y + y.std() * 2,
    ],
    ids=["constant", "zero", "another sample's", "shifted", "transposed", "negated", "scaled",
         "offset"],
)  # fmt: skip
def test_what_is_wrong_and_not_rounded_never_passes(scheme: Scheme, wrong: object) -> None:
    reference = outputs(32, 6, 6)
    assert callable(wrong)
    with pytest.raises(ParityError):
        gate(compared(reference, wrong(reference)), scheme)


def test_an_offset_that_all_samples_share_hides_nothing() -> None:
    # Against the whole output a constant or shuffled answer would reach more than 100 dB here.
    reference = 100 + 0.001 * outputs(32, 4)
    for wrong in (reference[:1].expand_as(reference).clone(), reference.roll(1, dims=0)):
        parity = compared(reference, wrong)
        assert parity.sqnr_db is not None
        assert parity.sqnr_db < MINIMUM_SQNR_DB["int8"]
        with pytest.raises(ParityError):
            gate(parity, "int8")


def test_a_constant_output_is_called_by_name() -> None:
    reference = outputs(32, 4)
    parity = compared(reference, reference[:1].expand_as(reference).clone())
    with pytest.raises(ParityError, match="same for every sample"):
        gate(parity, "fp32")


def test_a_constant_output_among_several_is_called_by_its_number() -> None:
    references = (outputs(8, 4), 100 + 0.001 * outputs(8, 4))
    actuals = (references[0], references[1][:1].expand(8, 4).clone())
    parity = compare(references, actuals, TENSOR * 2, (), runtime=NUMPY)
    with pytest.raises(ParityError, match=r"output \[1\]"):
        gate(parity, "fp32")


def test_a_model_that_is_constant_may_be_constant() -> None:
    reference = torch.ones(8, 4)
    gate(compared(reference, reference.clone()), "fp32")


def test_one_sample_cannot_show_that_outputs_vary() -> None:
    gate(compared(outputs(1, 4), outputs(1, 4)), "fp32")


@pytest.mark.parametrize(
    "shape", [(64, 10, 1), (1, 64, 10), (64, 1, 10), (63, 10), (64, 11), (640,), (10, 64), (64,)]
)
def test_another_shape_is_a_parity_error_and_never_broadcast(shape: tuple[int, ...]) -> None:
    parity = compared(outputs(64, 10), outputs(*shape))
    with pytest.raises(ParityError, match="output shapes"):
        gate(parity, "int8")


def test_one_sample_with_a_dimension_less_is_not_broadcast() -> None:
    reference = outputs(1, 10)
    with pytest.raises(ParityError, match=r"\[\[10\]\], the model gives \[\[1, 10\]\]"):
        gate(compared(reference, reference[0]), "int8")


def test_images_that_were_not_permuted_back_are_a_parity_error() -> None:
    reference = outputs(4, 3, 8, 8)
    with pytest.raises(ParityError, match="output shapes"):
        gate(compared(reference, reference.permute(0, 2, 3, 1).contiguous()), "fp32")


def test_another_number_of_outputs_is_a_parity_error() -> None:
    parity = compare((outputs(4, 3),), (outputs(4, 3),) * 2, TENSOR, (), runtime=NUMPY)
    with pytest.raises(ParityError, match="output shapes"):
        gate(parity, "fp32")


def test_a_failed_check_is_named_though_the_numbers_agree() -> None:
    check = Check(name="precision", passed=False, detail="still float")
    parity = compared(outputs(4, 3), outputs(4, 3), check)
    with pytest.raises(ParityError, match="precision: still float"):
        gate(parity, "fp32")


def test_checks_are_kept_in_order() -> None:
    check = Check(name="weights", passed=True, detail="ok")
    parity = compared(outputs(4, 3), outputs(4, 3), check)
    assert parity.checks[0] == check
    assert all(item.passed for item in parity.checks)


def unverified(*checks: Check) -> Parity:
    return Parity(
        status="not verified",
        runtime="nothing here",
        samples=0,
        sqnr_db=None,
        maximum_error=None,
        top1_agreement=None,
        checks=checks,
    )


def test_what_cannot_run_here_passes_by_its_checks_alone() -> None:
    gate(unverified(Check(name="weights", passed=True, detail="")), "int8")
    with pytest.raises(ParityError, match="weights"):
        gate(unverified(Check(name="weights", passed=False, detail="differ")), "int8")


def test_agreement_counts_the_samples_with_the_same_winner() -> None:
    reference = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [2.0, 1.0]])
    actual = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    assert compared(reference, actual).top1_agreement == 0.75


def test_agreement_is_of_logits_and_nothing_else() -> None:
    reference = outputs(4, 3)
    parity = compare((reference,), (reference,), TENSOR, (), runtime=NUMPY)
    assert parity.top1_agreement is None
    both = (OutputSpec(name="a"), OutputSpec(name="b", kind="probabilities"))
    other = torch.flip(reference, [1])
    parity = compare((reference, reference), (other, reference), both, (), runtime=NUMPY)
    assert parity.top1_agreement == 1.0


def test_the_largest_difference_is_over_all_outputs() -> None:
    references = (torch.zeros(2, 1), torch.zeros(2, 1))
    actuals = (torch.tensor([[0.0], [-0.5]]), torch.tensor([[0.25], [0.0]]))
    parity = compare(references, actuals, TENSOR * 2, (), runtime=NUMPY)
    assert parity.maximum_error == 0.5


def test_integer_outputs_are_compared_too() -> None:
    reference = torch.arange(12).reshape(4, 3)
    gate(compared(reference, reference.to(torch.int32)), "fp32")
    with pytest.raises(ParityError):
        gate(compared(reference, reference + 5), "fp32")


def test_int4_is_held_to_the_quantized_network() -> None:
    torch.manual_seed(0)
    quantized = torch.randn(16, 10)
    near = quantized + 0.1 * torch.randn(16, 10)
    assert follows((quantized,), (near,)).passed
    assert not follows((quantized,), (torch.randn(16, 10),)).passed
    assert not follows((quantized,), (near * float("nan"),)).passed
