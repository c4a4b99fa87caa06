"""The share of a file that its delegate executes, as a condition."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from blobs_task import blobs

from edgesdk.artifact import OpCount
from edgesdk.budget import Budget, parse_share
from edgesdk.cache import Cache
from edgesdk.effort import Effort
from edgesdk.errors import UnsupportedModel, UsageError
from edgesdk.progress import Silent
from edgesdk.stages import delegation
from edgesdk.stages.delegation import (
    check_share,
    delegated_share,
    keep_delegated,
    require_delegated,
)
from edgesdk.stages.request import Request, resolve


def counted(**where: int) -> tuple[OpCount, ...]:
    return tuple(
        OpCount(op="CONV_2D", dtype="int8", where=name.replace("_", "-"), count=n, weight_bytes=0)
        for name, n in where.items()
    )


@pytest.fixture(scope="module")
def request_for(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """A request for the Ethos-U, for which nothing is emitted."""
    return resolve(
        blobs(),
        device="corstone_300",
        target=None,
        budget=Budget(),
        effort=Effort(),
        accelerator="cpu",
        cache=Cache(tmp_path_factory.mktemp("cache")),
        progress=Silent(),
        needs_toolchain=False,
    )


@pytest.mark.parametrize(
    ("operators", "share"),
    [
        (counted(xnnpack=3, portable=1), 0.75),
        (counted(ethos_u=4), 1.0),
        (counted(cpu=4), 0.0),
        (counted(builtin=4), None),
        (counted(tensorrt=4), None),
        (counted(xnnpack=3, something=1), None),
        ((), None),
    ],
)
def test_the_share_is_known_where_the_file_says_who_executes(
    operators: tuple[OpCount, ...], share: float | None
) -> None:
    assert delegated_share(operators) == share


@pytest.mark.parametrize("least", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_what_cannot_be_a_share_is_a_usage_error(least: float) -> None:
    with pytest.raises(UsageError, match="is no share"):
        check_share(least)
    assert check_share(parse_share("90%")) == pytest.approx(0.9)


def test_a_finished_file_is_counted_again(request_for: Request) -> None:
    require_delegated(counted(ethos_u=9, cpu=1), request_for, 0.9)
    with pytest.raises(UnsupportedModel, match="only 80 % .* on the CPU: 2 x CONV_2D"):
        require_delegated(counted(ethos_u=8, cpu=2), request_for, 0.9)
    with pytest.raises(UnsupportedModel, match="only 0 %"):
        require_delegated(counted(builtin=8), request_for, 0.1)


def test_a_target_that_does_not_tell_is_a_usage_error(request_for: Request) -> None:
    phone = replace(request_for, runtime=replace(request_for.runtime, vela=None))
    with pytest.raises(UsageError, match="do not tell who executes what"):
        require_delegated(counted(builtin=8), phone, 0.1)


def test_precisions_that_leave_too_much_are_not_offered(
    request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "fp32": counted(builtin=10),
        "int8": counted(ethos_u=8, cpu=2),
        "w8a16": counted(ethos_u=7, cpu=3),
    }

    def emit(request: Request, model: Any, key: str) -> Any:
        return SimpleNamespace(operators=files[model.scheme])

    monkeypatch.setattr(delegation, "emit", emit)
    kept = keep_delegated(request_for, 0.8)
    assert kept.schemes == ("int8",)
    assert kept.baseline_scheme == "fp32", "what limits are relative to stays"
    assert "only 0 %" in kept.refused["fp32"]
    with pytest.raises(UnsupportedModel, match=r"fp32: only 0 %.*int8: only 80 %"):
        keep_delegated(request_for, 0.9)
