"""One layer of another scheme, from the planner's choice to the operators of the emitted file."""

from __future__ import annotations

from pathlib import Path

import pytest
from lopsided_task import RUINED, lopsided

from edgesdk.artifact import read_manifest
from edgesdk.budget import Budget
from edgesdk.effort import Effort
from edgesdk.errors import BudgetInfeasible
from edgesdk.pipeline import compile_task

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", ["executorch", "tflite"])
def test_the_layer_that_int8_ruins_stays_float(target: str, tmp_path: Path) -> None:
    # At more, float layers of lower rank lose still less.
    budget = Budget.parse(size="35%", max_drop="1%")
    result = compile_task(
        lopsided(), device="host", target=target, budget=budget, out=tmp_path / "out",
        schemes=("fp32", "int8_dynamic"), effort=Effort.parse("quick", None),
    )  # fmt: skip
    assert result.status == "ok"
    assert dict(result.plan.layer_schemes) == {RUINED: "fp32"}
    assert any(f"{RUINED} in fp32" in reason for reason in result.plan.reasons)
    drop = result.verified["accuracy_drop"]
    assert (drop.standing, drop.value <= 0.01) == ("verified", True)
    assert result.verified["size_bytes"].value <= 0.35 * result.baseline["size_bytes"].value
    # The file itself holds layers of both kinds.
    linear = [op for op in read_manifest(tmp_path / "out").operators if op.weight_bytes]
    assert len({op.dtype for op in linear}) > 1


def test_without_leave_to_mix_there_is_nothing_that_fits(tmp_path: Path) -> None:
    budget = Budget.parse(size="60%", max_drop="1%")
    with pytest.raises(BudgetInfeasible):
        compile_task(
            lopsided(), device="host", target="executorch", budget=budget, out=tmp_path / "out",
            schemes=("int8_dynamic",), effort=Effort.parse("quick", None),
        )  # fmt: skip
