"""The pooled fit: devices, precisions and engines share what they have in common.

Every (scheme, board, engine) has its own vector of log-coefficients, and each is the sum of

- the prior's vector of its scheme,
- a level of all classes and a deviation of each class, which everybody shares,
- for every scheme but the first, again a level and deviations,
- for every board a level, if there are several, and for every engine of a scheme but the wanted.

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
from scipy.optimize import least_squares

from edgesdk.cost.features import Floats, KernelTable
from edgesdk.cost.log_coefficients import (
    BYTE,
    CLASSES,
    DISPATCH,
    INFERENCE_AT,
    KIND,
    LENGTH,
    MAC,
    WEIGHT,
    latency_s,
    log_coefficients,
    priced_classes,
)
from edgesdk.precision_cost import PrecisionCost
from edgesdk.scheme import Scheme

Setting = tuple[Scheme, str, str]
"""Scheme, board and engine of a measurement: what has coefficients of its own."""

# Widths of the pulls, as logarithms. Chosen once on the Snapdragon rows; none is tuned by row.
_SCATTER = 0.12
_LEVEL = 0.3
_CLASS_SPREAD: Mapping[int, float] = {MAC: 0.5, BYTE: 1.0, DISPATCH: 1.0, WEIGHT: 0.5}
_INFERENCE_SPREAD = 0.8
_SCHEME_LEVEL = 0.5
_SCHEME_SPREAD = 0.35  # of the classes', relative to the first scheme's
_DEFAULT_SPREAD = 1e-3
_BOARD_LEVEL = 0.7
_ENGINE_LEVEL = 0.5

# Measurements of one network on several devices repeat its own error: together they weigh this
# much, in measurements.
_WEIGHT_OF_A_MODEL = 1.7


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One measurement as a fit sees it."""

    model: str
    setting: Setting
    table: KernelTable
    seconds: float


class Pool:
    """Settings that are fitted together, and how each one's vector follows from the parameters."""

    def __init__(self, settings: Sequence[Setting], priors: Mapping[Scheme, PrecisionCost]) -> None:
        """Lay out the parameters; the first setting's scheme is the one without its own."""
        self.settings = tuple(dict.fromkeys(settings))
        self._centres = {scheme: log_coefficients(prior) for scheme, prior in priors.items()}
        self._priced = {scheme: priced_classes(prior) for scheme, prior in priors.items()}
        first_scheme = self.settings[0][0]
        several = len({board for _, board, _ in self.settings}) > 1
        blocks: dict[tuple[str, ...], tuple[Floats, Floats]] = {
            ("level",): _levels(_LEVEL),
            ("classes",): _deviations(1.0),
        }
        for scheme, board, engine in self.settings:
            if scheme != first_scheme:
                blocks["scheme level", scheme] = _levels(_SCHEME_LEVEL)
                blocks["scheme classes", scheme] = _deviations(_SCHEME_SPREAD)
            if several:
                blocks["board", board] = _joint_levels(_BOARD_LEVEL)
            if engine:
                blocks["engine", scheme, engine] = _joint_levels(_ENGINE_LEVEL)
        self.spreads = np.concatenate([spread for _, spread in blocks.values()])
        self._designs = {setting: self._design(setting, blocks) for setting in self.settings}

    def vector(self, setting: Setting, parameters: Floats) -> Floats:
        """Return the log-coefficients of a setting under the shared parameters."""
        logs: Floats = self._centres[setting[0]] + self._designs[setting] @ parameters
        return logs

    def predict(self, item: Observation, parameters: Floats) -> float:
        """Return the seconds that the parameters give a measurement's network on its setting."""
        logs = self.vector(item.setting, parameters)
        return latency_s(logs, item.table, self._priced[item.setting[0]])[0]

    def fit(self, observations: Sequence[Observation]) -> Floats:
        """Return the parameters that agree with the observations.

        Least squares on log(predicted / measured) with soft-L1 loss, so that a suspect row weighs
        little, and the pulls as further residuals; from the prior, until it converges.
        """
        counts = Counter((item.model, item.setting[0]) for item in observations)
        weights = np.array(
            [
                math.sqrt(min(1.0, _WEIGHT_OF_A_MODEL / counts[item.model, item.setting[0]]))
                for item in observations
            ]
        )
        weights /= _SCATTER
        measured = np.log([item.seconds for item in observations])
        latest: dict[bytes, Floats] = {}

        def residuals(parameters: Floats) -> Floats:
            seconds, jacobian = self._evaluate(observations, parameters)
            latest.clear()
            latest[parameters.tobytes()] = np.vstack(
                [jacobian * weights[:, None], np.diag(1 / self.spreads)]
            )
            ratios = (np.log(seconds) - measured) * weights
            return np.concatenate([ratios, parameters / self.spreads])

        def jacobian(parameters: Floats) -> Floats:
            if parameters.tobytes() not in latest:
                residuals(parameters)
            return latest[parameters.tobytes()]

        start = np.zeros(len(self.spreads))
        found: Floats = least_squares(
            residuals,
            start,
            jacobian,
            loss="soft_l1",
            x_scale=self.spreads,
            ftol=1e-6,
            max_nfev=100,
        ).x
        return found

    def _evaluate(
        self, observations: Sequence[Observation], parameters: Floats
    ) -> tuple[Floats, Floats]:
        """Return seconds ``[O]`` and d log(seconds) / d parameters ``[O, P]``."""
        vectors = {setting: self.vector(setting, parameters) for setting in self.settings}
        seconds = np.empty(len(observations))
        gradients = np.empty((len(observations), LENGTH))
        rows: dict[Setting, list[int]] = {}
        for index, item in enumerate(observations):
            seconds[index], gradients[index] = latency_s(
                vectors[item.setting], item.table, self._priced[item.setting[0]]
            )
            rows.setdefault(item.setting, []).append(index)
        jacobian = np.empty((len(observations), len(parameters)))
        for setting, indices in rows.items():
            jacobian[indices] = gradients[indices] @ self._designs[setting]
        return seconds, jacobian

    def _design(
        self, setting: Setting, blocks: Mapping[tuple[str, ...], tuple[Floats, Floats]]
    ) -> Floats:
        scheme, board, engine = setting
        own = {
            ("level",), ("classes",), ("scheme level", scheme), ("scheme classes", scheme),
            ("board", board), ("engine", scheme, engine),
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


def _deviations(scale: float) -> tuple[Floats, Floats]:
    """Return one parameter for each entry; the default's entries have none to speak of."""
    spreads = np.array([_CLASS_SPREAD[kind] for kind in KIND]) * scale
    spreads[[CLASSES - 1, 2 * CLASSES - 1, 3 * CLASSES - 1]] = _DEFAULT_SPREAD
    spreads[INFERENCE_AT] = _INFERENCE_SPREAD * scale
    return np.eye(LENGTH), spreads
