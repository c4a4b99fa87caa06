"""The pooled fit: devices, precisions and engines share what they have in common.

Every (scheme, board, engine) has its own vector of log-coefficients, and each is the sum of

- the prior's vector of its scheme,
- a level of all classes and a deviation of each class, which everybody shares,
- for every scheme but the first, again a level and deviations,
- for every board a level, if there are several,
- for every engine of a scheme but the wanted, a level and deviations: two compilers for one unit
  lower the same operator to different kernels.

A level is four numbers: seconds per MAC, per byte, per byte of weights, per dispatch. All are
pulled towards zero, so that a device with few measurements costs what its relatives cost, up to
the level that its own measurements show, and a class nobody measured costs what the prior says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from edgesdk.cost.batch import Batch
from edgesdk.cost.features import Floats, KernelTable
from edgesdk.cost.log_coefficients import (
    BYTE,
    CLASSES,
    INFERENCE_AT,
    KIND,
    LENGTH,
    WEIGHT,
    log_coefficients,
    priced_classes,
)
from edgesdk.precision_cost import PrecisionCost
from edgesdk.scheme import Scheme

Setting = tuple[Scheme, str, str]
"""Scheme, board and engine of a measurement: what has coefficients of its own."""

_DEFAULT_SPREAD = 1e-3

# Measurements of one network on several devices repeat its own error: together they weigh this
# much, in measurements.
_WEIGHT_OF_A_MODEL = 1.7


# The kinks of max() keep the gradient from vanishing, so the steps are limited too.
_OPTIONS: Mapping[str, float] = {
    "gtol": 0.05,
    "maxiter": 60,
    "initial_trust_radius": 3.0,
    "max_trust_radius": 30.0,
}


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Widths of the pulls, as logarithms: orders of magnitude.

    A number that is as far from what others of its kind do as its width weighs as much as a
    measurement that is ``scatter`` off. ``scheme_classes`` and ``engine_classes`` are shares of
    ``classes`` by which a scheme's and an engine's classes may deviate. They were chosen by
    leaving out whole networks of the Snapdragon rows; ``benchmarks/prediction.py --nested`` shows
    what that choice flatters the figures by. The other units took them as they were.
    """

    scatter: float = 0.12
    level: float = 0.3
    classes: tuple[float, float, float, float] = (0.5, 1.0, 1.0, 0.5)  # MAC, BYTE, DISPATCH, WEIGHT
    inference: float = 0.8
    scheme: float = 0.5
    scheme_classes: float = 0.35
    board: float = 0.7
    engine: float = 0.5
    engine_classes: float = 0.3


USUAL = Widths()


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One measurement as a fit sees it."""

    model: str
    setting: Setting
    table: KernelTable
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Evaluated:
    """The loss of a fit, its gradient ``[P]`` and the Gauss-Newton Hessian ``[P, P]``."""

    loss: float
    gradient: Floats
    hessian: Floats

    @classmethod
    def of(cls, misses: Floats, jacobian: Floats, steps: Floats) -> _Evaluated:
        # Only the misses are robust: a prior must not be forgiven for being far away.
        root = np.sqrt(1 + misses**2)
        hessian = (jacobian.T / root) @ jacobian
        hessian[np.diag_indices_from(hessian)] += 1
        return cls(
            loss=float((root - 1).sum() + steps @ steps / 2),
            gradient=jacobian.T @ (misses / root) + steps,
            hessian=hessian,
        )


class Pool:
    """Settings that are fitted together, and how each one's vector follows from the parameters."""

    def __init__(
        self,
        settings: Sequence[Setting],
        priors: Mapping[Scheme, PrecisionCost],
        widths: Widths = USUAL,
    ) -> None:
        """Lay out the parameters; the first setting's scheme is the one without its own."""
        self._widths = widths
        self.settings = tuple(dict.fromkeys(settings))
        self._centres = {scheme: log_coefficients(prior) for scheme, prior in priors.items()}
        self._priced = {scheme: priced_classes(prior) for scheme, prior in priors.items()}
        first_scheme = self.settings[0][0]
        several = len({board for _, board, _ in self.settings}) > 1
        blocks: dict[tuple[str, ...], tuple[Floats, Floats]] = {
            ("level",): _levels(widths.level),
            ("classes",): _deviations(widths),
        }
        for scheme, board, engine in self.settings:
            if scheme != first_scheme:
                blocks["scheme level", scheme] = _levels(widths.scheme)
                blocks["scheme classes", scheme] = _deviations(widths, widths.scheme_classes)
            if several:
                blocks["board", board] = _joint_levels(widths.board)
            if engine:
                blocks["engine", scheme, engine] = _joint_levels(widths.engine)
                blocks["engine classes", scheme, engine] = _deviations(
                    widths, widths.engine_classes
                )
        self.spreads = np.concatenate([spread for _, spread in blocks.values()])
        self._designs = {setting: self._design(setting, blocks) for setting in self.settings}

    def vector(self, setting: Setting, parameters: Floats) -> Floats:
        """Return the log-coefficients of a setting under the shared parameters."""
        logs: Floats = self._centres[setting[0]] + self._designs[setting] @ parameters
        return logs

    def predict(self, items: Sequence[Observation], parameters: Floats) -> Floats:
        """Return the seconds that the parameters give each network on its setting, ``[O]``."""
        return self._batch(items).seconds(self._vectors(items, parameters))[0]

    def fit(self, observations: Sequence[Observation]) -> Floats:
        """Return the parameters that agree with the observations.

        The least of half the soft-L1 losses of log(predicted / measured), so that a suspect row
        weighs little, and half the squared pulls; from the prior, by trust-region steps with the
        Gauss-Newton approximation of the Hessian.
        """
        counts = Counter((item.model, item.setting[0]) for item in observations)
        weights = np.array(
            [
                math.sqrt(min(1.0, _WEIGHT_OF_A_MODEL / counts[item.model, item.setting[0]]))
                for item in observations
            ]
        )
        weights /= self._widths.scatter
        measured = np.log([item.seconds for item in observations])
        batch = self._batch(observations)

        def evaluate(steps: Floats) -> _Evaluated:
            parameters = steps * self.spreads
            seconds, gradient = batch.seconds(self._vectors(observations, parameters))
            jacobian = self._by_parameter(observations, gradient) * weights[:, None]
            return _Evaluated.of((np.log(seconds) - measured) * weights, jacobian, steps)

        latest: dict[bytes, _Evaluated] = {}

        def at(steps: Floats) -> _Evaluated:
            key = steps.tobytes()
            if key not in latest:
                latest.clear()
                latest[key] = evaluate(steps)
            return latest[key]

        found: Floats = minimize(
            lambda steps: at(steps).loss,
            np.zeros(len(self.spreads)),
            method="trust-exact",
            jac=lambda steps: at(steps).gradient,
            hess=lambda steps: at(steps).hessian,
            options=_OPTIONS,
        ).x
        parameters: Floats = found * self.spreads
        return parameters

    def _batch(self, items: Sequence[Observation]) -> Batch:
        return Batch.of(
            [item.table for item in items], [self._priced[item.setting[0]] for item in items]
        )

    def _vectors(self, items: Sequence[Observation], parameters: Floats) -> Floats:
        vectors = {setting: self.vector(setting, parameters) for setting in self.settings}
        return np.array([vectors[item.setting] for item in items])

    def _by_parameter(self, items: Sequence[Observation], gradient: Floats) -> Floats:
        """Return d log(seconds) / d (parameters / spreads), ``[O, P]``."""
        rows: dict[Setting, list[int]] = {}
        for index, item in enumerate(items):
            rows.setdefault(item.setting, []).append(index)
        jacobian = np.empty((len(items), len(self.spreads)))
        for setting, indices in rows.items():
            jacobian[indices] = gradient[indices] @ self._designs[setting]
        scaled: Floats = jacobian * self.spreads
        return scaled

    def _design(
        self, setting: Setting, blocks: Mapping[tuple[str, ...], tuple[Floats, Floats]]
    ) -> Floats:
        scheme, board, engine = setting
        own = {
            ("level",), ("classes",), ("scheme level", scheme), ("scheme classes", scheme),
            ("board", board), ("engine", scheme, engine), ("engine classes", scheme, engine),
        }  # fmt: skip
        return np.hstack(
            [design if name in own else 0 * design for name, (design, _) in blocks.items()]
        )


def _levels(spread: float) -> tuple[Floats, Floats]:
    """Return a level: one parameter for each of the four rates."""
    return np.eye(4)[KIND], np.full(4, spread)


def _joint_levels(spread: float) -> tuple[Floats, Floats]:
    """Return a level in which weights stream as fast as other bytes move."""
    return np.eye(3)[np.where(KIND == WEIGHT, BYTE, KIND)], np.full(3, spread)


def _deviations(widths: Widths, scale: float = 1.0) -> tuple[Floats, Floats]:
    """Return one parameter for each entry; the default's entries have none to speak of."""
    spreads = np.array(widths.classes)[KIND] * scale
    spreads[[CLASSES - 1, 2 * CLASSES - 1, 3 * CLASSES - 1]] = _DEFAULT_SPREAD
    spreads[INFERENCE_AT] = widths.inference * scale
    return np.eye(LENGTH), spreads
