"""A complete target in one file: multilayer perceptrons as weights that NumPy computes with.

The file is ``model.safetensors``: the weights, and as metadata the steps that use them. It is the
template for a target of your own; a real one imports its toolchain inside the functions.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from edgesdk.artifact import Check, OpCount, TensorSpec, inside
from edgesdk.compressed import CompressedModel
from edgesdk.device import Runtime
from edgesdk.errors import ArtifactError, UnsupportedModel
from edgesdk.host_runtime import HostRuntime
from edgesdk.measurement import RuntimeIdentity
from edgesdk.scheme import SCHEMES, Scheme
from edgesdk.target import (
    Arrays,
    Capability,
    Emission,
    Session,
    Simulation,
    Target,
    Toolchain,
)
from edgesdk.trace import trace

FILE = "model.safetensors"
DTYPES: Mapping[Scheme, str] = {"fp32": "float32", "fp16": "float16"}

Step = dict[str, str]
Weights = dict[str, NDArray[np.generic]]


class NumpyTarget:
    """Emits chains of linear layers and ReLUs; fp16 stores half the bytes and computes in fp32."""

    name = "numpy"

    def toolchain(self) -> Toolchain:
        """Return which packages are here and which are missing."""
        proven = (("numpy", "2.4.6", "computes"), ("safetensors", "0.8.0", "stores weights"))
        return Toolchain.of(self.name, proven, "pip install edgesdk-numpy")

    def capability(self, runtime: Runtime) -> Capability:
        """Return what this target can emit for a runtime, with a reason for each refusal."""
        refused = {s: "this target has no quantizer" for s in SCHEMES if s not in DTYPES}
        for scheme in DTYPES:
            if scheme not in runtime.precisions:
                refused[scheme] = f"the device profile lists no {scheme} for {runtime.runtime}"
        return Capability(schemes=tuple(s for s in SCHEMES if s not in refused), refused=refused)

    def emit(self, model: CompressedModel, runtime: Runtime, folder: Path) -> Emission:
        """Write the runtime's files into an empty folder and say how to feed them."""
        graph = trace(model.module, model.example_inputs, name=self.name)
        state = model.module.state_dict()
        steps: list[Step] = []
        weights: Weights = {}
        for op in graph.ops:
            if op.kind not in ("linear", "relu"):
                raise UnsupportedModel(
                    f"layer {op.layer!r} is a {op.kind}, which target {self.name!r} cannot emit",
                    expected="a chain of linear layers and ReLUs",
                    next_step="choose another target",
                )
            steps.append({"kind": op.kind, "layer": op.layer})
            for name, role in zip(op.parameters, ("weight", "bias"), strict=False):
                steps[-1][role] = name
                weights[name] = state[name].numpy().astype(DTYPES[model.scheme])
        save_file(weights, folder / FILE, metadata={"steps": json.dumps(steps)})
        return Emission(
            files=(FILE,),
            inputs=(_spec(model.inputs[0].name, model.example_inputs[0].shape),),
            outputs=(_spec(model.outputs[0].name, graph.tensors[graph.ops[-1].outputs[0]].shape),),
            tool_versions={"numpy": np.__version__},
            layer_of={f"{index}": step["layer"] for index, step in enumerate(steps)},
        )

    def operators(self, folder: Path, emission: Emission) -> tuple[OpCount, ...]:
        """Re-open the file and count its operators by type, executor and weight bytes."""
        steps, weights = read(folder, emission)
        counts = []
        for kind in ("linear", "relu"):
            of_kind = [step for step in steps if step["kind"] == kind]
            held = sum(weights[s[r]].nbytes for s in of_kind for r in ("weight", "bias") if r in s)
            if of_kind:
                counts.append(
                    OpCount(
                        op=kind,
                        dtype="float32",
                        where="numpy",
                        count=len(of_kind),
                        weight_bytes=held,
                    )
                )
        return tuple(counts)

    def checks(self, folder: Path, emission: Emission, model: CompressedModel) -> tuple[Check, ...]:
        """Re-open the file and return what reading it proves or disproves."""
        _, weights = read(folder, emission)
        wanted = {name: tensor.numpy() for name, tensor in model.module.state_dict().items()}
        differing = [
            name
            for name, value in wanted.items()
            if name not in weights or not np.allclose(weights[name], value, rtol=1e-3, atol=1e-6)
        ]
        stored = sorted({str(array.dtype) for array in weights.values()})
        return (
            Check(name="weights", passed=not differing, detail=f"differ: {differing or 'none'}"),
            Check(
                name="precision",
                passed=stored == [DTYPES[model.scheme]],
                detail=f"stored as {', '.join(stored)}",
            ),
        )

    def host_runtime(self, runtime: Runtime) -> HostRuntime | None:
        """Return what runs the file here, None where nothing can."""
        return HostRuntime(name="numpy")

    def open(self, folder: Path, emission: Emission, host_runtime: str, threads: int) -> Session:
        """Load the file; called only in the worker process, where a native crash is contained."""
        return NumpySession(*read(folder, emission), threads=threads)

    def simulate(self, model: CompressedModel) -> Simulation | None:
        """Return None: the file itself runs here, so nothing needs to be simulated."""
        return None


class NumpySession:
    """A loaded file; arrays have the file's shapes and types."""

    def __init__(self, steps: list[Step], weights: Weights, *, threads: int) -> None:
        self._steps = steps
        self._weights = {name: array.astype(np.float32) for name, array in weights.items()}
        self.identity = RuntimeIdentity(
            runtime="numpy",
            version=np.__version__,
            platform=f"{sys.platform}-{platform.machine()}",
            unit="cpu",
            threads=threads,
        )

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs of one inference at the file's batch."""
        value = inputs[0].astype(np.float32)
        for step in self._steps:
            if step["kind"] == "relu":
                value = np.maximum(value, 0)
                continue
            value = value @ self._weights[step["weight"]].T
            if "bias" in step:
                value = value + self._weights[step["bias"]]
        return [value]

    def bind(self, inputs: Arrays) -> Callable[[], object]:
        """Return a function that runs one inference on these inputs: it is what is timed."""
        return partial(self.run, inputs)

    def memory_bytes(self) -> int | None:
        """Return the runtime's own working memory; NumPy does not tell."""
        return None


def read(folder: Path, emission: Emission) -> tuple[list[Step], Weights]:
    """Return a file's steps and weights; ``ArtifactError`` for one that is damaged."""
    path = inside(folder, emission.files[0])
    try:
        with safe_open(path, framework="numpy") as file:
            steps = json.loads((file.metadata() or {})["steps"])
            names = file.keys()
            return steps, {name: file.get_tensor(name) for name in names}
    except (OSError, KeyError, SafetensorError, json.JSONDecodeError) as problem:
        raise ArtifactError(f"{path.name} is not a file of this target: {problem}") from problem


def _spec(name: str, shape: tuple[int, ...]) -> TensorSpec:
    """Return how one tensor is fed: as PyTorch has it, not permuted and not quantized."""
    return TensorSpec(
        name=name, shape=tuple(shape), dtype="float32", from_torch=tuple(range(len(shape)))
    )


TARGET: Target = NumpyTarget()
