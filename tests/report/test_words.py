from dataclasses import replace

from edgesdk.plan import (
    AdaRound,
    BiasCorrection,
    Distil,
    Equalize,
    Factorize,
    Finetune,
    Prune,
    PrunedGroup,
    Qat,
    Quantize,
    Step,
)
from edgesdk.report.words import explain_step

TRAINING = {
    "epochs": 7, "learning_rate": 0.1, "temperature": 4.0, "alpha": 0.9, "patience": 2,
}  # fmt: skip
GROUP = PrunedGroup(layer="stem", width_before=8, removed=(0, 1))


def test_every_step_says_what_it_does() -> None:
    prune = Prune(ratio=0.25, channel_multiple=1, importance="taylor", groups=(GROUP,))
    said: list[tuple[Step, str]] = [
        (prune, "stem 8 → 6"),
        (replace(prune, removed_blocks=("a", "b")), "Remove a, b. Prune 25 %"),
        (replace(prune, groups=(), removed_blocks=("a",)), "Remove a"),
        (Factorize(ranks={"a": 8, "b": 4}), "in two of lower rank: a at rank 8, b at rank 4"),
        (Distil(**TRAINING), "at most 7 epochs"),  # type: ignore[arg-type]
        (Finetune(), "finetune()"),
        (Equalize(), "Equalise"),
        (BiasCorrection(), "Correct biases"),
        (AdaRound(iterations=300), "300 steps a layer"),
        (Qat(**TRAINING), "(QAT): at most 7 epochs"),  # type: ignore[arg-type]
        (Quantize(scheme="int8"), "Emit in int8"),
        (Quantize(scheme="int8", layer_schemes={"stem": "fp32"}), "but stem in fp32"),
    ]
    for step, words in said:
        assert words in explain_step(step)
    assert len({explain_step(step) for step, _ in said}) == len(said)
