"""Plans of bare steps."""

from __future__ import annotations

from typing import Any

from edgesdk.plan import Plan


def plan_of(*steps: Any, seed: int = 0) -> Plan:
    """Return a plan that has these steps and says nothing else."""
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
