"""A target: what it can do on a device, how it emits a model, and who runs the file here.

Built-in targets and third-party ones come through the same door, the entry-point group
``edgesdk.targets``; each entry point names an object that satisfies ``Target``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from edgesdk.artifact import Check, OpCount, TensorSpec
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.errors import TargetUnavailable, UnsupportedModel, UsageError, unknown_name
from edgesdk.figure import Figure, FigureName
from edgesdk.graph import OpGraph
from edgesdk.host_runtime import HostRuntime
from edgesdk.measurement import RuntimeIdentity
from edgesdk.scheme import SCHEMES, QuantizerName, Scheme
from edgesdk.task import Tensors

ENTRY_POINTS = "edgesdk.targets"

_UNMIXED = "this target gives all layers of a network one scheme"
Arrays = list[NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Package:
    """A distribution a target needs: the version found (None: missing) and the proven one.

    ``optional``: only some of the target's runtimes need it; ``install`` is then the command that
    adds it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    found: str | None
    proven: str
    purpose: str
    optional: bool = False
    install: str = ""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """The state of a target's toolchain; ``install`` is the exact command that completes it."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    target: str
    packages: tuple[Package, ...]
    install: str

    @classmethod
    def of(cls, target: str, packages: Sequence[tuple[str, str, str]], install: str) -> Toolchain:
        """Return the state of ``packages``: distribution, proven version and purpose of each."""
        found = (
            Package(name=name, found=installed_version(name), proven=proven, purpose=purpose)
            for name, proven, purpose in packages
        )
        return cls(target=target, packages=tuple(found), install=install)

    @property
    def is_complete(self) -> bool:
        """True when every package that is not optional is installed."""
        return all(package.found for package in self.packages if not package.optional)


@dataclass(frozen=True, kw_only=True)
class Capability:
    """The schemes a target emits for a runtime, and for each other scheme the reason why not.

    ``mixes`` names for each scheme of a network those that single layers of it can have instead
    (``CompressedModel.layer_schemes``); ``unmixed`` says why others cannot stand beside it.
    ``quantizer`` is whose rules its int8 follows to the last grid: a network can be prepared for
    those. None where they are others; then int8 is taken as it comes out. ``estimates`` names the
    figures that the target's compiler tells of every file it makes for the runtime.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schemes: tuple[Scheme, ...]
    refused: Mapping[Scheme, str]
    mixes: Mapping[Scheme, tuple[Scheme, ...]] = field(default_factory=dict)
    unmixed: str = _UNMIXED
    quantizer: QuantizerName | None = None
    estimates: tuple[FigureName, ...] = ()

    def mix_refusal(self, scheme: Scheme, layer_scheme: Scheme) -> str | None:
        """Return why a layer cannot have a scheme in a network of another, None where it can."""
        if layer_scheme == scheme or layer_scheme in self.mixes.get(scheme, ()):
            return None
        return self.refused.get(layer_scheme, self.unmixed)

    @classmethod
    def of(
        cls, refusal: Callable[[Scheme], str | None], *,
        mixes: Mapping[Scheme, tuple[Scheme, ...]] = MappingProxyType({}), unmixed: str = _UNMIXED,
        quantizer: QuantizerName | None = None, estimates: tuple[FigureName, ...] = (),
    ) -> Capability:  # fmt: skip
        """Return the capability of a target that gives a reason for each scheme it refuses.

        Of ``mixes`` only what is offered stays.
        """
        refused = {scheme: why for scheme in SCHEMES if (why := refusal(scheme)) is not None}
        offered = tuple(s for s in SCHEMES if s not in refused)
        kept = {s: tuple(o for o in mixes.get(s, ()) if o in offered) for s in offered}
        return cls(
            schemes=offered,
            refused=refused,
            mixes=kept,
            unmixed=unmixed,
            quantizer=quantizer,
            estimates=estimates,
        )


@dataclass(frozen=True, kw_only=True)
class Emission:
    """What ``emit`` wrote: the runtime's files, and how to feed and read them.

    ``host_files`` are what runs on this machine where the runtime's files run on the device alone:
    the same network before a compiler that leaves a command stream. They stay with the artifact
    and are not for the device. ``developer_files`` are for the runtime's own developer tools, on no
    device and off every size. ``estimates`` are figures that this compiler tells of its result.
    ``layer_of`` maps a runtime operator's name to the model
    layer it came from, where the converter keeps that. ``device_commands`` are what has to be run
    once, in the folder of the files on the device, before the runtime can load them.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tool_versions: Mapping[str, str]
    layer_of: Mapping[str, str]
    device_commands: tuple[str, ...] = ()
    host_files: tuple[str, ...] = ()
    developer_files: tuple[str, ...] = ()
    estimates: Mapping[FigureName, Figure] = field(default_factory=dict)

    @property
    def opened(self) -> str:
        """The file that a session on this machine opens."""
        return (self.host_files or self.files)[0]


class Session(Protocol):
    """A loaded artifact, inside the worker process. Arrays have the file's shapes and types."""

    identity: RuntimeIdentity

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs of one inference at the file's batch."""

    def bind(self, inputs: Arrays) -> Callable[[], object]:
        """Return a function that runs one inference on these inputs and does nothing else.

        It is what is timed: neither feeding the inputs nor copying the outputs belongs to it,
        so a figure is the runtime's and not the Python interface's.
        """

    def memory_bytes(self) -> int | None:
        """Return the runtime's own working memory (arena, planned buffers), None if not told."""


Simulation = Callable[..., Tensors]


@runtime_checkable
class Target(Protocol):
    """The whole extension interface. Toolchains are imported inside the functions, never on top.

    Every method may raise ``TargetUnavailable`` (with the install command) except ``toolchain``
    and ``capability``, which work without the toolchain.
    """

    name: str

    def toolchain(self) -> Toolchain:
        """Return which packages are here and which are missing."""

    def capability(self, runtime: Runtime) -> Capability:
        """Return what this target can emit for a runtime, with a reason for each refusal."""

    def emit(self, model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
        """Write the runtime's files into an empty folder and say how to feed them.

        Raises ``UnsupportedModel`` naming layer, operator and what to do.
        """

    def operators(self, folder: Path, emission: Emission) -> tuple[OpCount, ...]:
        """Re-open the file and count its operators by type, executor and weight bytes."""

    def checks(self, folder: Path, emission: Emission, model: CompressedModel) -> tuple[Check, ...]:
        """Re-open the file and return what reading it proves or disproves: that the precision
        is the one asked for, that weights decode to the model's, that inputs are as stated."""

    def host_runtime(self, runtime: Runtime) -> HostRuntime | None:
        """Return what runs the file here, None where nothing can."""

    def open(self, folder: Path, emission: Emission, host_runtime: str, threads: int) -> Session:
        """Load the file; called only in the worker process, where a native crash is contained."""

    def simulate(self, model: CompressedModel) -> Simulation | None:
        """Return a PyTorch function computing as the quantized file does, None if there is none.

        It is what a prediction of accuracy rests on where the file itself cannot run here.
        """


@runtime_checkable
class GraphReader(Protocol):
    """What a target may do besides: read files of its format, whoever wrote them."""

    suffix: str

    def read_graph(self, path: Path) -> OpGraph:
        """Return what the file computes; ``ArtifactError`` where it is damaged,
        ``UnsupportedModel`` where an ``OpGraph`` cannot hold it."""


@dataclass(frozen=True, kw_only=True)
class Twin:
    """Another runtime on this machine that has to give the numbers that the host runtime gives.

    ``most_units``: by how many of the output's integer units they may differ, 0 for not at all;
    None where that is not bounded and signal to noise decides. ``reason`` says why they may.
    ``unusable`` says why it cannot be asked about this file; then nothing is compared.
    """

    host_runtime: str
    most_units: int | None
    reason: str = ""
    unusable: str = ""


@runtime_checkable
class Twinned(Protocol):
    """What a target may do besides: name a second, independent runtime for a file's answers."""

    def twin(self, folder: Path, emission: Emission, host_runtime: str) -> Twin | None:
        """Return the runtime that has to agree with ``host_runtime``, None where none does."""


@runtime_checkable
class FieldRunner(Protocol):
    """What a target may do besides: run its artifacts on an older runtime that apps still ship."""

    field_runtimes: tuple[str, ...]

    def prepare_field(self, name: str, cache: Path) -> Path:
        """Return the Python of an environment with that runtime, made under the cache's folder
        where there is none yet; ``TargetUnavailable`` where it cannot be."""

    def run_in_field(
        self, name: str, python: Path, folder: Path, emission: Emission, stacked: Arrays
    ) -> tuple[RuntimeIdentity, Arrays]:
        """Return who ran the file and the outputs ``[M, B, ...]``; ``ArtifactError`` where it does
        not run there."""


@runtime_checkable
class Bundler(Protocol):
    """What a target may do besides: join a file with inputs and the outputs expected of it."""

    def bundle(
        self, folder: Path, emission: Emission, inputs: Tensors, outputs: Tensors
    ) -> tuple[str, ...]:
        """Write what the runtime's own tools check the file with beside it, and return its names;
        ``[N, ...]`` inputs and outputs are in PyTorch's layout."""


@cache
def target_names() -> tuple[str, ...]:
    """Return the names of all registered targets, sorted."""
    return tuple(sorted({entry.name for entry in metadata.entry_points(group=ENTRY_POINTS)}))


@cache
def find_target(name: str) -> Target:
    """Return the registered target of that name.

    Raises ``UsageError`` for an unknown name, two registrations of one name, or an entry point
    whose object is not a ``Target``.
    """
    entries = [e for e in metadata.entry_points(group=ENTRY_POINTS) if e.name == name]
    if not entries:
        raise UsageError(
            unknown_name("target", name, target_names(), listing=f"known: {target_names()}")
        )
    if len({entry.value for entry in entries}) > 1:
        raise UsageError(f"several packages register the target {name!r}: {entries}")
    try:
        target = entries[0].load()
    except (ImportError, AttributeError) as problem:
        raise TargetUnavailable(
            f"the package of target {name!r} cannot be imported: {problem}",
            next_step=f"pip install 'edgesdk[{name}]'",
        ) from problem
    if not isinstance(target, Target):
        raise UsageError(f"{entries[0].value} is registered as a target but is not a Target")
    return target


def refuse_schemes(capability: Capability, model: CompressedModel) -> None:
    """Raise ``UnsupportedModel`` for a scheme, or a layer's scheme, that is not offered."""
    reason = capability.refused.get(model.scheme)
    if reason is not None:
        raise UnsupportedModel(
            f"{model.scheme} is not possible here: {reason}",
            expected=f"one of {', '.join(capability.schemes)}" if capability.schemes else None,
        )
    for layer, scheme in model.layer_schemes.items():
        reason = capability.mix_refusal(model.scheme, scheme)
        if reason is not None:
            raise UnsupportedModel(
                f"layer {layer!r} cannot be {scheme} in a network of {model.scheme}: {reason}",
                expected=f"one of {', '.join(capability.mixes.get(model.scheme, ())) or 'none'}",
            )


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, None when it is missing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def require(toolchain: Toolchain) -> None:
    """Raise ``TargetUnavailable`` with the install command unless the toolchain is complete."""
    missing = [p.name for p in toolchain.packages if p.found is None and not p.optional]
    if missing:
        raise TargetUnavailable(
            f"target {toolchain.target!r} needs {', '.join(missing)}, which is not installed",
            next_step=toolchain.install,
        )
