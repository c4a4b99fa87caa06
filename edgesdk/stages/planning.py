"""Write the plan of a decision for a request."""

from __future__ import annotations

from edgesdk.compress.distil import default_distil
from edgesdk.errors import UsageError
from edgesdk.plan import Distil, Finetune, Plan
from edgesdk.planner.explanation import write_plan
from edgesdk.planner.search import Assessment, Decision
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.stages.baseline import Baseline
from edgesdk.stages.request import Request


def plan_for(
    request: Request, taken: Assessment, decision: Decision, sensitivity: Sensitivity,
    baseline: Baseline,
) -> Plan:  # fmt: skip
    """Return the plan that carries out ``taken``, the decision's choice or its nearest option."""
    return write_plan(
        taken,
        decision,
        sensitivity,
        task=request.task.name,
        task_key=request.key,
        device=request.device,
        runtime=request.runtime,
        recovery=_recovery(request),
        refused=request.refused,
        baseline=baseline.figures,
        seed=request.task.seed,
    )


def check_replay(request: Request, plan: Plan) -> None:
    """Raise ``UsageError`` unless the plan was made for this task, device and target."""
    wanted = {
        "task": (plan.task_key, request.key),
        "device": (plan.device, request.device.name),
        "target": (plan.target, request.target.name),
    }
    for what, (planned, asked) in wanted.items():
        if planned != asked:
            raise UsageError(
                f"the plan was made for another {what}",
                expected=f"{planned}, this is {asked}",
                next_step="make a new plan with 'edgesdk plan'",
            )
    if plan.scheme not in request.schemes:
        reason = request.refused.get(plan.scheme, "not offered")
        raise UsageError(f"the plan's precision {plan.scheme} is not possible here: {reason}")


def _recovery(request: Request) -> Distil | Finetune | None:
    if request.task.finetune is not None:
        return Finetune()
    return default_distil(request.task) if request.task.training is not None else None
