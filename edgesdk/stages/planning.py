"""Write the plan of a decision for a request."""

from __future__ import annotations

from dataclasses import replace

from edgesdk.cache import key_of
from edgesdk.compressed import CompressedModel
from edgesdk.document import to_builtins
from edgesdk.errors import UsageError
from edgesdk.plan import Plan, Quantize
from edgesdk.planner.explanation import Recovery, write_plan
from edgesdk.planner.prediction import predict_costs
from edgesdk.planner.search import Assessment, Decision
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.stages.baseline import Baseline, predict_elsewhere
from edgesdk.stages.request import Request
from edgesdk.trace import trace


def plan_for(
    request: Request, taken: Assessment, decision: Decision, sensitivity: Sensitivity,
    baseline: Baseline, *, recovery: Recovery,
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
        recovery=recovery,
        refused=request.refused,
        baseline=baseline.figures,
        seed=request.task.seed,
    )


def is_edited(plan: Plan) -> bool:
    """Return whether the steps are not those that were decided."""
    return key_of(to_builtins(plan.steps)) != plan.steps_sha256


def replanned(request: Request, plan: Plan, model: CompressedModel) -> Plan:
    """Return an edited plan with what its steps cost predicted anew, and without old reasons."""
    graph = trace(model.module, model.example_inputs, name=request.task.name)
    return replace(
        plan,
        option=f"{plan.scheme}, edited plan",
        predicted=predict_costs(graph, request.runtime, plan.scheme, plan.layer_schemes),
        elsewhere=predict_elsewhere(request, graph, plan.scheme, plan.layer_schemes),
        reasons=("The steps were edited after the plan was made; they are carried out as given.",),
        rejected=(),
        front=(),
        prices=(),
        gap=0.0,
    )


def check_replay(request: Request, plan: Plan) -> None:
    """Raise ``UsageError`` unless the plan was made for this task, device and target."""
    wanted = {
        "task": (plan.task_key, request.key),
        "device": (plan.device, request.device.name),
        "target": (plan.target, request.target.name),
        "delegate": (plan.delegate or request.runtime.delegate, request.runtime.delegate),
        "fleet": (sorted(plan.elsewhere), sorted(m.device.name for m in request.others)),
    }
    for what, (planned, asked) in wanted.items():
        if planned != asked:
            raise UsageError(
                f"the plan was made for another {what}",
                expected=f"{planned}, this is {asked}",
                next_step="make a new plan with 'edgesdk plan'",
            )
    emitted = next((s.scheme for s in reversed(plan.steps) if isinstance(s, Quantize)), "fp32")
    if emitted != plan.scheme:
        raise UsageError(
            f"the plan's precision is {plan.scheme}, its steps end in {emitted}",
            expected="the same in both places",
        )
    if plan.scheme not in request.schemes:
        reason = request.refused.get(plan.scheme, "not offered")
        raise UsageError(f"the plan's precision {plan.scheme} is not possible here: {reason}")
    capability = request.target.capability(request.runtime)
    for layer, scheme in plan.layer_schemes.items():
        refusal = capability.mix_refusal(plan.scheme, scheme)
        if refusal is not None:
            raise UsageError(
                f"the plan's layer {layer!r} cannot be {scheme} in a network of {plan.scheme}: "
                f"{refusal}"
            )
