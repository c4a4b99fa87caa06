"""The main job: from a task, a device and a budget to a proven artifact, or a firm refusal."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

from edgesdk.budget import Budget, format_figure
from edgesdk.cache import Cache, default_root
from edgesdk.effort import Effort
from edgesdk.errors import BudgetInfeasible, UsageError
from edgesdk.foreign import Foreign
from edgesdk.graph import OpGraph
from edgesdk.output import check_output, disk_errors, writing
from edgesdk.plan import Plan
from edgesdk.planner.search import binding_condition
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.profiling.bench import Bench
from edgesdk.progress import Progress, Silent
from edgesdk.result import CompileResult
from edgesdk.stages.attempt import Attempt, carry_out
from edgesdk.stages.baseline import establish_baseline, predict_baseline, with_accuracy
from edgesdk.stages.bisection import naming_the_layer
from edgesdk.stages.delegation import check_share, keep_delegated, require_delegated
from edgesdk.stages.feedback import decide_only, find_attempt
from edgesdk.stages.field import seal_field_run
from edgesdk.stages.files import keep_emittable
from edgesdk.stages.learning import learn_graph, learn_sensitivity
from edgesdk.stages.planning import check_replay
from edgesdk.stages.request import Devices, Request, for_graph, resolve
from edgesdk.stages.sealing import seal
from edgesdk.task import Task
from edgesdk.task_source import load_task
from edgesdk.verification import field_runner
from edgesdk.workers.choice import find_workers


def compile_task(
    task: Task | str, *, device: Devices, out: str | Path, target: str | None = None,
    budget: Budget | None = None, plan: Plan | None = None, effort: Effort | None = None,
    bench: Bench | None = None, accelerator: str = "auto", schemes: Collection[str] = (),
    field_runtime: str | None = None, min_delegated: float | None = None,
    delegate: str | None = None, cache: Path | None = None,
    progress: Progress | None = None, workers: str | int = 1,
) -> CompileResult:  # fmt: skip
    """Return the result of compiling a task for a device under a budget, written to ``out``.

    Several devices are a fleet: one file that keeps the budget on each of them; it is measured for
    the first one and predicted for the others.
    ``plan`` replays a plan instead of searching for one; ``effort`` bounds the training that a
    search may spend. With a ``bench`` every candidate is measured on it, and what it measures
    corrects the predictions for the next ones. ``schemes`` names the precisions that may be chosen,
    all where it is empty. ``field_runtime`` names an older runtime that the artifact is run on as
    well; the manifest says whether it runs there. ``min_delegated`` is the least share of operators
    that a delegate must execute, as the file tells it. ``delegate`` names the target's back end
    for the file (None: the first of the device's profile). ``cache`` is where finished steps are
    kept (default: the user's cache folder). ``workers`` says how many processes measure
    sensitivities and train, or which Ray cluster does; more than 1 need a task given by its
    reference. Raises ``BudgetInfeasible`` (its ``result`` holds the
    nearest plan and the limit that binds) when nothing fits; ``out`` is then not written.
    """
    destination = check_output(Path(out))
    least = None if min_delegated is None else check_share(min_delegated)
    root = cache or default_root()
    with disk_errors(root), find_workers(workers) as hired:
        request = resolve(
            load_task(task) if isinstance(task, str) else task,
            device=device,
            target=target,
            budget=budget or Budget(),
            effort=effort or Effort(),
            accelerator=accelerator,
            cache=Cache(root),
            progress=progress or Silent(),
            needs_toolchain=True,
            bench=bench,
            only=schemes,
            delegate=delegate,
            workers=hired,
        )
        field_python = _prepare_field(request, field_runtime, root) if field_runtime else None
        if plan is not None:
            check_replay(request, plan)
        graph = learn_graph(request)
        request = keep_emittable(for_graph(request, graph))
        if least is not None and plan is None:
            request = keep_delegated(request, least)
        with naming_the_layer(request):
            attempt, sensitivity = _attempt(request, graph, plan)
        if attempt.status == "infeasible":
            _refuse(request, attempt)
        if least is not None:
            assert attempt.proof is not None
            made = attempt.proof.runnable.emitted.operators
            require_delegated(made, request, least)
        result = _result(request, attempt, artifact=destination)
    with writing(destination) as folder:
        seal(request, attempt, result, folder, original=graph, sensitivity=sensitivity)
        if field_runtime is not None and field_python is not None:
            request.progress.step(f"Running the artifact on {field_runtime}")
            seal_field_run(folder, field_runtime, field_python)
    return result


def _attempt(
    request: Request, graph: OpGraph, plan: Plan | None
) -> tuple[Attempt, Sensitivity | None]:
    """Return what replaying the plan gives, else the best attempt with what guided its search."""
    baseline = establish_baseline(request, graph)
    if plan is not None:
        replayed = carry_out(request, plan, baseline, split="test", measure=True, replayed=True)
        return replayed, None
    sensitivity = learn_sensitivity(request, graph)
    return find_attempt(request, sensitivity, baseline), sensitivity


def plan_task(
    task: Task | str, *, device: Devices, target: str | None = None,
    budget: Budget | None = None, effort: Effort | None = None, accelerator: str = "auto",
    schemes: Collection[str] = (), delegate: str | None = None,
    cache: Path | None = None, progress: Progress | None = None, workers: str | int = 1,
) -> CompileResult:  # fmt: skip
    """Return the decision and its reasons by prediction alone; nothing is trained or emitted.

    ``workers`` says how many processes measure sensitivities, or which Ray cluster does.
    Raises ``BudgetInfeasible`` when every option is ruled out by its predicted figures.
    """
    root = cache or default_root()
    with disk_errors(root), find_workers(workers) as hired:
        request = resolve(
            load_task(task) if isinstance(task, str) else task,
            device=device,
            target=target,
            budget=budget or Budget(),
            effort=effort or Effort(),
            accelerator=accelerator,
            cache=Cache(root),
            progress=progress or Silent(),
            needs_toolchain=False,
            only=schemes,
            delegate=delegate,
            workers=hired,
        )
        graph = learn_graph(request)
        request = keep_emittable(for_graph(request, graph))
        baseline = predict_baseline(request, graph)
        attempt = decide_only(request, learn_sensitivity(request, graph), baseline)
    if attempt.status == "infeasible":
        _refuse(request, attempt)
    return _result(request, attempt, artifact=None)


def _prepare_field(request: Request, name: str, cache: Path) -> Path:
    """Return the Python of an older runtime, its environment made now: a lack shows at once."""
    runner = field_runner(request.target.name, name)
    if request.runtime.vela is not None:
        raise UsageError(
            f"{name} does not run files for {request.runtime.delegate}",
            next_step="leave --runtime out",
        )
    request.progress.step(f"Preparing {name}")
    return runner.prepare_field(name, cache)


def _result(request: Request, attempt: Attempt, *, artifact: Path | None) -> CompileResult:
    proof = attempt.proof
    executed = proof is not None
    return CompileResult(
        status=attempt.status,
        device=request.device.name,
        target=request.target.name,
        artifact=artifact,
        files=proof.runnable.emitted.emission.files if proof and artifact else (),
        plan=attempt.plan,
        baseline=with_accuracy(request, attempt.baseline) if executed else attempt.baseline,
        predicted=attempt.predicted,
        verified=proof.verified if proof else {},
        interpreted=proof.interpreted if proof else {},
        measured=proof.measured if proof else {},
        verdicts=attempt.verdicts,
        feasibility=attempt.feasibility,
        binding=binding_condition(attempt.verdicts, attempt.feasibility),
        reason=attempt.reason,
        elsewhere=attempt.plan.elsewhere,
        parity=proof.runnable.parity if proof else None,
    )


def _refuse(request: Request, attempt: Attempt) -> NoReturn:
    """Raise ``BudgetInfeasible`` with the nearest plan and how far its limits are off."""
    model = request.task.model
    unpruned = f"; {model.unpruned}" if isinstance(model, Foreign) else ""
    raise BudgetInfeasible(
        f"{request.task.name} on {_where(request)}: {attempt.reason}{unpruned}",
        next_step=_next_step(attempt),
        result=_result(request, attempt, artifact=None),
    )


def _where(request: Request) -> str:
    return " and ".join(d.title for d in (request.device, *(o.device for o in request.others)))


def _next_step(attempt: Attempt) -> str:
    """Say which limits no option reaches and the smallest figure there is for each."""
    unknown = [v.condition.figure for v in attempt.verdicts if v.figure is None]
    if unknown:
        return f"drop the limit on {', '.join(unknown)}: nothing here tells that figure"
    out_of_reach = [
        f"{row.figure}{f' on {row.device}' if row.device else ''} to "
        f"{format_figure(row.figure, row.smallest)} ({row.smallest_option})"
        for row in attempt.feasibility
        if not row.reachable and row.smallest is not None
    ]
    if out_of_reach:
        return f"loosen {', '.join(out_of_reach)}, or bring a smaller model"
    if len(attempt.verdicts) > 1 and attempt.feasibility:
        return "loosen one of the limits: each can be met alone, not all together"
    return "loosen the limit, or plan anew without --plan"
