"""A request: task, device, target and budget, checked against each other before any work."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from edgesdk.budget import Budget, Condition
from edgesdk.cache import Cache, key_of
from edgesdk.compress.accelerator import find_accelerator
from edgesdk.compress.pooling import fit_windows
from edgesdk.device import DeviceProfile, Runtime
from edgesdk.device_files import load_device
from edgesdk.effort import Effort
from edgesdk.errors import TargetUnavailable, UnsupportedModel, UsageError, unknown_name
from edgesdk.figure import Figures
from edgesdk.foreign import Foreign
from edgesdk.graph import OpGraph
from edgesdk.host_runtime import HostRuntime
from edgesdk.layer_format import scheme_refusal
from edgesdk.planner.departures import Mixes, planned_mixes
from edgesdk.profiling.agent.runtimes import TENSORRT
from edgesdk.profiling.bench import Bench
from edgesdk.profiling.runners import find_runner
from edgesdk.progress import Progress
from edgesdk.scheme import (
    CALIBRATED_SCHEMES,
    FLOAT_SCHEMES,
    SCHEMES,
    QuantizerName,
    Scheme,
)
from edgesdk.stages.fleet import (
    Member,
    common_target,
    fleet_conditions,
    joint_runtime,
    members_of,
)
from edgesdk.target import (
    Capability,
    Target,
    find_target,
    installed_version,
    require,
    target_names,
)
from edgesdk.task import InputSpec, OutputSpec, Task
from edgesdk.task_check import check_task, input_specs, output_specs
from edgesdk.task_key import task_key
from edgesdk.workers.here import Here
from edgesdk.workers.job import Workers
from edgesdk.workers.task_parcel import check_can_cross

HOST = "host"

Devices = str | DeviceProfile | Sequence[str | DeviceProfile]
"""A device, or a fleet of them: by name, by profile file or as a profile."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What was asked, resolved: ``schemes`` are those the target emits for the runtime, and
    ``refused`` says why for the others; ``quantizer`` whose rules its int8 follows, if known.
    ``baseline_scheme`` is the float form that the original is emitted in, whether or not it may be
    chosen. ``key`` is the hash of the task. ``bench`` is where another device than this machine is
    measured, None where none is at hand. ``others`` are the devices that the same file must keep
    the budget on, too. ``workers`` do what can be done apart."""

    task: Task
    key: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    device: DeviceProfile
    runtime: Runtime
    others: tuple[Member, ...]
    target: Target
    schemes: tuple[Scheme, ...]
    refused: Mapping[Scheme, str]
    baseline_scheme: Scheme
    quantizer: QuantizerName | None
    budget: Budget
    effort: Effort
    accelerator: torch.device
    cache: Cache
    progress: Progress
    bench: Bench | None
    workers: Workers

    @property
    def can_measure(self) -> bool:
        """Whether the artifact can be clocked on the very device it is for."""
        return self.bench is not None or self.is_clocked_here

    @property
    def is_clocked_here(self) -> bool:
        """Whether that device is this machine, whose runtime can be timed in turns."""
        host = self.host_runtime
        return self.device.name == HOST and host is not None and host.standing == "verified"

    @property
    def mixes(self) -> Mixes:
        """The schemes that single layers may leave the network's for, where the target mixes: on
        every device. Of a foreign network no single layer is looked at."""
        if isinstance(self.task.model, Foreign):
            return {}
        first, *others = (self.target.capability(r).mixes for r in self.runtimes.values())
        shared = {
            base: tuple(s for s in schemes if all(s in other.get(base, ()) for other in others))
            for base, schemes in first.items()
        }
        return planned_mixes(shared, self.schemes)

    @property
    def runtimes(self) -> dict[str, Runtime]:
        """The runtime on every device, by what conditions call it: the first one has no name."""
        return {"": self.runtime, **{other.device.name: other.runtime for other in self.others}}

    def conditions(
        self, budget: Budget, baseline: Figures, elsewhere: Mapping[str, Figures]
    ) -> tuple[Condition, ...]:
        """Return a budget's conditions on every device; relative limits are of the baselines."""
        first = Member(device=self.device, runtime=self.runtime)
        return fleet_conditions(budget, baseline, first, self.others, elsewhere)

    @property
    def host_runtime(self) -> HostRuntime | None:
        """What runs the artifact here, None where nothing can."""
        return self.target.host_runtime(self.runtime)

    @property
    def tool_versions(self) -> dict[str, str]:
        """The versions that decide what emitting gives, for cache keys and manifests."""
        packages = {p.name: p.found for p in self.target.toolchain().packages if p.found}
        model = self.task.model
        own = model.tool_versions if isinstance(model, Foreign) else {}
        return {"torch": str(torch.__version__), **packages, **own}

    def key_for(self, *parts: object) -> str:
        """Return a cache key for something that depends on the task, on ``parts`` and on us."""
        return key_of(self.key, f"edgesdk={installed_version('edgesdk')}", *parts)


def resolve(
    task: Task, *, device: Devices, target: str | None, budget: Budget, effort: Effort,
    accelerator: str, cache: Cache, progress: Progress, needs_toolchain: bool,
    bench: Bench | None = None, only: Collection[str] = (), delegate: str | None = None,
    workers: Workers | None = None,
) -> Request:  # fmt: skip
    """Return the request, or raise the error that says what does not fit together.

    ``needs_toolchain`` is false where nothing will be emitted (``plan``). ``only`` names the
    schemes that may be chosen, all that are possible where it is empty. ``delegate`` is the
    target's back end that executes the file, None for the profile's first. ``workers`` compute,
    this process where nobody else is given.
    """
    profile, *rest = profiles = _profiles(device)
    bench = _check_bench(bench, profile)
    target = common_target(profiles, _own_target(task, profiles, target))
    for each in profiles:
        _check_target(each, target)
    first = _runtime(profile, target, delegate)
    others = members_of(first, rest)
    runtime = joint_runtime(first, others)
    if bench is not None:
        _check_unit(bench, profile, runtime)
    found = find_target(runtime.target)
    if needs_toolchain:
        require(found.toolchain())
        found.host_runtime(runtime)  # so that a missing one is named before any work
    capability = found.capability(runtime)
    offer = _offer(
        task, first=profile, target=found, capability=capability, others=others, only=only
    )
    progress.step("Checking the task")
    if workers is not None and not isinstance(workers, Here):
        check_can_cross(task)
    check_task(task)
    model, narrowed = fit_windows(task.model, task.example_inputs)
    if narrowed:
        progress.step(f"Cutting pooling windows to their inputs: {', '.join(narrowed)}")
        task = replace(task, model=model)
    return Request(
        task=task,
        key=task_key(task),
        inputs=input_specs(task),
        outputs=output_specs(task),
        device=profile,
        runtime=runtime,
        others=others,
        target=found,
        schemes=offer.schemes,
        refused=offer.refused,
        baseline_scheme=offer.baseline,
        # Its rules are for networks that can be prepared for them.
        quantizer=None if isinstance(task.model, Foreign) else capability.quantizer,
        budget=budget,
        effort=effort,
        accelerator=find_accelerator(accelerator),
        cache=cache,
        progress=progress,
        bench=bench,
        workers=workers or Here(),
    )


class _Offer(NamedTuple):
    """The schemes that may be chosen, why others may not, and the one the original is float in."""

    schemes: tuple[Scheme, ...]
    refused: dict[Scheme, str]
    baseline: Scheme


def _offer(
    task: Task, *, first: DeviceProfile, target: Target, capability: Capability,
    others: Sequence[Member], only: Collection[str],
) -> _Offer:  # fmt: skip
    """Return what target, task and every device leave; raises ``TargetUnavailable`` for nothing."""
    refused = _refused(task, capability)
    floats = [s for s in capability.schemes if s in FLOAT_SCHEMES and s not in refused]
    if not floats:
        raise TargetUnavailable(
            f"target {target.name!r} emits no float model for {first.name}",
            expected=f"one of its precisions: {refused}",
        )
    refused = _refused_elsewhere(target, others) | refused
    schemes = [scheme for scheme in capability.schemes if scheme not in refused]
    where = f"{target.name} for " + " and ".join((first.name, *(o.device.name for o in others)))
    schemes = _only(only, schemes, refused, where=where)
    if not schemes:
        raise TargetUnavailable(
            f"no precision is possible on {where}",
            expected="one that every device computes, of "
            + "; ".join(f"{scheme} ({reason})" for scheme, reason in refused.items()),
            next_step="compile for each group of devices apart",
        )
    return _Offer(schemes=tuple(schemes), refused=refused, baseline=floats[0])


def _own_target(task: Task, profiles: Sequence[DeviceProfile], target: str | None) -> str | None:
    """Return the only target of a foreign network, for others the one asked for."""
    model = task.model
    if not isinstance(model, Foreign):
        return target
    instead = f"convert {model.title} to PyTorch, which goes to every target"
    if target not in (None, model.target):
        raise UsageError(
            f"{model.title} goes to target {model.target!r} alone, not to {target!r}: its "
            "converter writes no other files",
            next_step=f"leave --target out, or {instead}",
        )
    for profile in profiles:
        if model.target not in profile.targets:
            raise UsageError(
                f"{model.title} goes to target {model.target!r} alone, and {profile.title} has "
                f"{', '.join(profile.targets)}",
                next_step=f"choose another device, or {instead}",
            )
    return model.target


def _profiles(device: Devices) -> list[DeviceProfile]:
    given = [device] if isinstance(device, str | DeviceProfile) else list(device)
    if not given:
        raise UsageError("no device was named", next_step="see 'edgesdk devices list'")
    return [load_device(each) if isinstance(each, str) else each for each in given]


def _refused_elsewhere(target: Target, others: Sequence[Member]) -> dict[Scheme, str]:
    """Return the schemes that the fleet's other devices rule out, each with the reason."""
    return {
        scheme: f"{other.device.title}: {reason}"
        for other in others
        for scheme, reason in target.capability(other.runtime).refused.items()
    }


def _refused(task: Task, capability: Capability) -> dict[Scheme, str]:
    """Return the schemes that target, runtime or the task's data rule out, each with the reason."""
    refused = dict(capability.refused)
    if isinstance(task.model, Foreign):
        refused = {**task.model.refused, **refused}
    if task.calibration is None:
        for scheme in CALIBRATED_SCHEMES:
            reason = "the task has no calibration data to find activation ranges with"
            refused.setdefault(scheme, reason)
    return refused


def for_graph(request: Request, graph: OpGraph) -> Request:
    """Return the request without the schemes that no layer of the graph can have.

    Raises ``UnsupportedModel`` where no scheme is left among those asked for.
    """
    target = request.target.name
    found = {scheme: scheme_refusal(graph, target, scheme) for scheme in request.schemes}
    left = tuple(scheme for scheme, reason in found.items() if reason is None)
    reasons = {scheme: reason for scheme, reason in found.items() if reason is not None}
    if not left:
        raise UnsupportedModel(
            "; ".join(reasons.values()),
            expected="a scheme that some layer can have",
            next_step="leave --scheme out, or name another one",
        )
    return replace(request, schemes=left, refused={**request.refused, **reasons})


def _check_target(profile: DeviceProfile, target: str | None) -> None:
    if target is None or target in profile.targets:
        return
    if target not in target_names():
        listing = f"known: {', '.join(target_names())}"
        raise UsageError(unknown_name("target", target, target_names(), listing=listing))
    raise UsageError(
        f"{profile.title} has no runtime for target {target!r}",
        expected=f"--target {' or '.join(profile.targets)}",
        next_step=f"see 'edgesdk devices show {profile.name}'",
    )


def _runtime(profile: DeviceProfile, target: str | None, delegate: str | None) -> Runtime:
    """Return the runtime that was asked for; a delegate alone also says which target."""
    known = [r.delegate for r in profile.runtime if target in (None, r.target)]
    if delegate is None or delegate in known:
        return profile.runtime_for(target, delegate)
    listing = f"{profile.title} has {', '.join(known)}"
    raise UsageError(
        unknown_name("delegate", delegate, known, listing=listing),
        next_step=f"see 'edgesdk devices show {profile.name}'",
    )


def _check_bench(bench: Bench | None, profile: DeviceProfile) -> Bench | None:
    """Return the bench that measures the device, None for this machine: it is always at hand."""
    if bench is None:
        return None
    find_runner(bench.on)
    kind = bench.on.partition(":")[0]
    if kind == "import":
        raise UsageError(
            "compile measures candidates that are not made yet, so none can be imported",
            expected="--on local, ssh:USER@HOST[:PORT] or adb[:SERIAL]",
        )
    if kind == "browser":
        raise UsageError(
            "compile measures candidate after candidate, and somebody would have to open a page "
            "for each",
            expected="--on local, ssh:USER@HOST[:PORT] or adb[:SERIAL]",
            next_step="compile without --on, then 'edgesdk profile OUT --on browser'",
        )
    if (kind == "local") != (profile.name == HOST):
        raise UsageError(
            f"--on {bench.on} does not measure {profile.title}",
            expected=f"--on local with --device {HOST}, and another runner with another device",
        )
    return None if kind == "local" else bench


def _check_unit(bench: Bench, profile: DeviceProfile, runtime: Runtime) -> None:
    """Raise ``UsageError`` where the runners' CPU would stand for another unit.

    The agent runs TensorRT where TensorRT runs: on the GPU.
    """
    by_agent = bench.on.partition(":")[0] == "ssh"
    if runtime.unit == "cpu" or (by_agent and runtime.runtime == TENSORRT):
        return
    others = [other.target for other in profile.runtime if other.unit == "cpu"]
    raise UsageError(
        f"--on {bench.on} runs on the CPU, and {runtime.target} for {profile.title} is for its "
        f"{runtime.unit}: the one's milliseconds are not the other's",
        expected=f"--target {' or '.join(others)}" if others else "no --on",
    )


def _only(
    names: Collection[str], offered: list[Scheme], refused: dict[Scheme, str], *, where: str
) -> list[Scheme]:
    """Return what is offered among the named schemes, or all; the rest is then refused as unasked.

    Raises ``UsageError`` for a name that is no scheme, and for one that is not possible here.
    """
    if not names:
        return offered
    for name in names:
        scheme = next((known for known in SCHEMES if known == name), None)
        if scheme is None:
            listing = f"known: {', '.join(SCHEMES)}"
            raise UsageError(unknown_name("scheme", name, SCHEMES, listing=listing))
        if scheme not in offered:
            raise UsageError(
                f"{name} is not possible on {where}: {refused.get(scheme, 'not offered')}",
                expected=f"--scheme {' or '.join(offered)}",
            )
    refused.update({s: "it was not among the schemes asked for" for s in offered if s not in names})
    return [scheme for scheme in offered if scheme in names]
