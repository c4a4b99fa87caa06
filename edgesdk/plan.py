"""A plan: ordered steps with their parameters, predicted figures, and the reasons for both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PositiveInt

from edgesdk.figure import Figure, FigureName
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class PrunedGroup:
    """Channels removed together: ``removed`` are output-channel indices of layer ``layer``.

    Everything coupled to that layer (residual partners, batch norms, consumers) loses the
    matching channels. ``width_before`` is the layer's output channels in the original model;
    ``heads`` how many attention heads they are, where whole heads go, and else 0.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    layer: str
    width_before: int
    removed: tuple[int, ...]
    heads: int = 0

    @property
    def width_after(self) -> int:
        """Output channels that stay."""
        return self.width_before - len(self.removed)


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Remove whole channels; ``importance`` names the criterion that chose them.

    ``removed_blocks`` are residual blocks that go as a whole, by their module paths: what they read
    is passed on. Groups count the channels of the network that still has them.
    With ``moves_batch_norms`` the batch norms' statistics are moved by what that moves in front of
    them, on the task's calibration or training inputs (``compress.recalibrate``).
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    ratio: float
    channel_multiple: int
    importance: Literal["taylor", "magnitude"]
    groups: tuple[PrunedGroup, ...]
    moves_batch_norms: bool = False
    removed_blocks: tuple[str, ...] = ()
    kind: Literal["prune"] = "prune"


@dataclass(frozen=True, kw_only=True)
class Factorize:
    """Replace layers, by their module paths, with two of the rank given (``edgesdk.low_rank``).

    What they answer on the task's calibration or training inputs decides which directions stay
    (``compress.factorize``); without such data their weights alone.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    ranks: Mapping[str, PositiveInt]
    kind: Literal["factorize"] = "factorize"


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training against the original (Hinton et al. 2015, eq. 4).

    ``loss = (1 - alpha) * task_loss + alpha * T^2 * KL(teacher || student)`` at temperature ``T``.
    Cosine schedule from ``learning_rate`` over ``epochs``; stops after ``patience`` epochs
    without a better validation score.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    epochs: int
    learning_rate: float
    temperature: float
    alpha: float
    patience: int


@dataclass(frozen=True, kw_only=True)
class Distil(Training):
    """Train the pruned network against the original, in float.

    ``Training``'s loss plus ``feature_weight`` times the mean squared error between the
    ``feature_layers``' outputs.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    feature_weight: float = 0.0
    feature_layers: tuple[str, ...] = ()
    kind: Literal["distil"] = "distil"


@dataclass(frozen=True, kw_only=True)
class Qat(Training):
    """Train on against the original with the rounding of int8 simulated."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["qat"] = "qat"


@dataclass(frozen=True, kw_only=True)
class Equalize:
    """Scale channels between layers until their weights' ranges are alike, ``sweeps`` at most."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    sweeps: PositiveInt = 40
    kind: Literal["equalize"] = "equalize"


@dataclass(frozen=True, kw_only=True)
class BiasCorrection:
    """Take the mean error that rounding to int8 leaves in each layer out of its bias."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["bias_correction"] = "bias_correction"


@dataclass(frozen=True, kw_only=True)
class AdaRound:
    """Choose for every int8 weight whether it is rounded up or down, layer by layer.

    ``iterations`` steps of Adam a layer on ``positions`` output positions of the calibration data.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    iterations: PositiveInt = 1000
    positions: PositiveInt = 4096
    learning_rate: float = 0.01
    kind: Literal["adaround"] = "adaround"


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Recover with the task's own ``finetune(student, teacher)``."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["finetune"] = "finetune"


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Emit in this precision (``edgesdk.scheme``), the named layers in another one."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    scheme: Scheme
    layer_schemes: Mapping[str, Scheme] = field(default_factory=dict)
    kind: Literal["quantize"] = "quantize"


Step = Annotated[
    Prune | Factorize | Distil | Finetune | Equalize | AdaRound | BiasCorrection | Qat | Quantize,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An option that was looked at and not taken, with its predicted figures and the reason."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    option: str
    predicted: Mapping[FigureName, Figure]
    reason: str


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """An option that no other one beats in every figure: ``fits`` where nothing rules it out.

    ``expected_loss`` is before recovery, in the unit the plan's reasons name.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    option: str
    expected_loss: float
    predicted: Mapping[FigureName, Figure]
    fits: bool
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one limit costs: the least expected loss at the limit, and at 0.9 and 1.1 of it.

    None where nothing fits. The difference over a tenth of the limit is its shadow price.
    Of a fleet every device's limit moves by the same share, and ``limit`` is the first one's.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    figure: FigureName
    limit: float
    expected_loss: float | None
    tighter_loss: float | None
    looser_loss: float | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do to the model for one device and target; replayable on the original weights.

    ``steps_sha256`` is the hash of the steps as they were decided, which tells an edited plan.
    ``task_key`` is the hash of what was planned for (weights, graph, source, version, seed):
    replaying it on another task is an error. ``reasons`` explain the choice in whole sentences.
    ``front`` are the options that nothing beats, the fastest first; ``prices`` what moving a limit
    would buy; ``gap`` how far the chosen widths may be from the best, as a share of their loss.
    ``elsewhere`` predicts the figures on the other devices of a fleet, by their names.
    ``delegate`` is the target's back end that was planned for, empty in plans that do not say.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    task: str
    task_key: str
    device: str
    target: str
    option: str
    scheme: Scheme
    steps: tuple[Step, ...]
    steps_sha256: str
    predicted: Mapping[FigureName, Figure]
    baseline: Mapping[FigureName, Figure]
    reasons: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    front: tuple[FrontPoint, ...]
    prices: tuple[Price, ...]
    gap: float
    seed: int
    elsewhere: Mapping[str, Mapping[FigureName, Figure]] = field(default_factory=dict)
    delegate: str = ""
    schema_version: Literal[1] = 1

    @property
    def ranks(self) -> Mapping[str, int]:
        """The layers that become two, and of which rank."""
        found: dict[str, int] = {}
        for step in self.steps:
            if isinstance(step, Factorize):
                found |= step.ranks
        return found

    @property
    def layer_schemes(self) -> Mapping[str, Scheme]:
        """The layers that are emitted in another scheme than the network."""
        found: dict[str, Scheme] = {}
        for step in self.steps:
            if isinstance(step, Quantize):
                found |= step.layer_schemes
        return found
