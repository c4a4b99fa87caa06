"""Compare predicted file sizes and memory with emitted files, and print what the models rest on.

    python benchmarks/footprint.py [size] [arena] [resident]

``size``: every network for every target and scheme; prints the container constants of
``edgesdk/cost/size.py`` by least squares and the worst error on a network left out.
``arena``: predicted against what TensorFlow Lite Micro reports on this machine (x86-64 build).
``resident``: predicted against the growth of a process's anonymous memory on this machine, once a
model is loaded and has run on XNNPACK. Takes some minutes in all.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from footprint_networks import large_networks, small_networks
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import nn

from edgesdk.artifact import size_bytes
from edgesdk.compressed import CompressedModel
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import container_features, predict_size, stored_bytes
from edgesdk.device import Runtime
from edgesdk.device_files import load_device
from edgesdk.document import from_builtins, to_json
from edgesdk.errors import EdgeSDKError
from edgesdk.scheme import Scheme
from edgesdk.target import Emission, Session, find_target
from edgesdk.task import InputSpec, OutputSpec
from edgesdk.trace import trace

SIZE_CASES: tuple[tuple[str, str, Scheme], ...] = (
    ("host", "executorch", "fp32"),
    ("host", "executorch", "int8"),
    ("host", "tflite", "fp32"),
    ("samsung_galaxy_s24", "tflite", "fp16"),
    ("nucleo_h7a3zi_q", "tflite", "int8"),
    ("iphone_15_pro", "coreml", "fp16"),
    ("iphone_15_pro", "coreml", "int8"),
)
Network = tuple[nn.Module, tuple[int, ...]]
Floats = NDArray[np.float64]


def emit(network: Network, runtime: Runtime, scheme: Scheme, folder: Path) -> Emission:
    """Return what a target wrote for a network, calibrated on noise."""
    module, shape = network
    inputs = (torch.randn(shape),)
    model = CompressedModel(
        module=module.eval(),
        example_inputs=inputs,
        scheme=scheme,
        calibration=(inputs,),
        inputs=(InputSpec(name="input"),),
        outputs=(OutputSpec(name="output"),),
    )
    return find_target(runtime.target).emit(model, runtime, folder)


def emitted(
    networks: dict[str, Network], runtime: Runtime, scheme: Scheme
) -> Iterator[tuple[str, Network, Path, Emission]]:
    """Yield each network's name, itself, the folder it was emitted to and how; print refusals."""
    for name, network in networks.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                emission = emit(network, runtime, scheme, Path(folder))
            except EdgeSDKError as problem:
                print(f"  {name}: not emitted: {problem.found}")
                continue
            yield name, network, Path(folder), emission


def compare_sizes() -> None:
    """Print, per target and scheme, the container's constants and errors on networks left out."""
    for device, target, scheme in SIZE_CASES:
        runtime = load_device(device).runtime_for(target)
        print(f"\n{target} {scheme}")
        names, rows, weights, real, predicted = [], [], [], [], []
        for name, (module, shape), folder, emission in emitted(small_networks(), runtime, scheme):
            graph = trace(module, (torch.zeros(shape),), name=name)
            names.append(name)
            rows.append(container_features(graph))
            weights.append(stored_bytes(graph, scheme))
            real.append(size_bytes(folder, emission.files))
            predicted.append(predict_size(graph, target, scheme).value)
        features, total = np.array(rows, dtype=np.float64), np.array(real, dtype=np.float64)
        stored = np.array(weights)
        constants = _container(features, stored, total)
        held_out = [
            features[i] @ _container(*(np.delete(a, i, 0) for a in (features, stored, total)))
            + stored[i]
            for i in range(len(total))
        ]
        print("  per channel, weighted, other kernel, file:", np.round(constants, 1).tolist())
        for name, guess, unseen, size in zip(names, predicted, held_out, real, strict=True):
            print(
                f"  {name:20} {size:9} B  predicted {guess / size:.3f}  unseen {unseen / size:.3f}"
            )
        print(f"  factor that holds nine in ten unseen: {_factor(np.array(held_out) / total):.3f}")


def _container(features: Floats, stored: Floats, total: Floats) -> Floats:
    """Return non-negative constants that explain what a file holds beside its weights."""
    constants: Floats = nnls(features / total[:, None], (total - stored) / total)[0]
    return constants


def _factor(ratios: Floats) -> float:
    distances = np.sort(np.abs(np.log(ratios)))
    return math.exp(distances[math.ceil(0.9 * len(distances)) - 1])


def compare_arenas() -> None:
    """Print predicted and reported arenas of TensorFlow Lite Micro."""
    runtime = load_device("nucleo_h7a3zi_q").runtime_for("tflite")
    ratios = []
    for scheme in runtime.precisions:
        print(f"\nTensorFlow Lite Micro arena, {scheme}")
        for name, (module, shape), folder, emission in emitted(small_networks(), runtime, scheme):
            try:
                session = find_target("tflite").open(folder, emission, "tflite-micro", 1)
            except EdgeSDKError as problem:
                print(f"  {name}: does not run: {problem.found}")
                continue
            arena = session.memory_bytes()
            assert arena is not None
            graph = trace(module, (torch.zeros(shape),), name=name)
            ratios.append(predict_memory(graph, runtime, scheme).value / arena)
            print(f"  {name:20} {arena:9} B  predicted {ratios[-1]:.3f}")
    print(f"  factor that holds nine in ten of {len(ratios)}: {_factor(np.array(ratios)):.3f}")


def compare_resident() -> None:
    """Print predicted memory and the growth of a process that loads and runs the file.

    The file itself is not counted: LiteRT maps it, and where ExecuTorch's session here reads it
    into memory, an app maps it.
    """
    ratios = []
    for target in ("executorch", "tflite"):
        runtime = load_device("host").runtime_for(target)
        with tempfile.TemporaryDirectory() as warm:
            _emit_for_worker(next(iter(small_networks().values())), runtime, "fp32", Path(warm))
            for scheme in runtime.precisions:
                print(f"\n{target} {scheme}, resident memory")
                for name, network in large_networks().items():
                    with tempfile.TemporaryDirectory() as folder:
                        file_bytes = _emit_for_worker(network, runtime, scheme, Path(folder))
                        grown = _resident_bytes(target, Path(folder), Path(warm))
                        grown -= file_bytes if target == "executorch" else 0
                    graph = trace(network[0], (torch.zeros(network[1]),), name=name)
                    ratios.append(predict_memory(graph, runtime, scheme).value / grown)
                    print(f"  {name:20} {grown / 1e6:8.2f} MB  predicted {ratios[-1]:.3f}")
    print(f"  factor that holds nine in ten of {len(ratios)}: {_factor(np.array(ratios)):.3f}")


def _emit_for_worker(network: Network, runtime: Runtime, scheme: Scheme, folder: Path) -> int:
    """Emit to a folder with all a worker needs, and return the bytes of the runtime's files."""
    emission = emit(network, runtime, scheme, folder)
    (folder / "emission.json").write_text(to_json(emission), encoding="utf-8")
    return size_bytes(folder, emission.files)


def _resident_bytes(target: str, folder: Path, warm: Path) -> int:
    command = [sys.executable, __file__, "worker", target, str(folder), str(warm)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # own file, no shell
    return int(result.stdout.splitlines()[-1])


def _worker(name: str, folder: Path, warm: Path) -> None:
    """Print by how many bytes this process grows when it loads a file and runs it twice."""
    host_runtime = find_target(name).host_runtime(load_device("host").runtime_for(name))
    assert host_runtime is not None

    def load_and_run(place: Path) -> Session:
        data = json.loads((place / "emission.json").read_text(encoding="utf-8"))
        emission = from_builtins(Emission, data, what="emission.json")
        session = find_target(name).open(place, emission, host_runtime, 1)
        for _ in range(2):
            session.run([np.zeros(spec.shape, dtype=spec.dtype) for spec in emission.inputs])
        return session

    load_and_run(warm)  # libraries and thread pools come with the first
    before = _anonymous_bytes()
    session = load_and_run(folder)
    print(_anonymous_bytes() - before)
    del session


def _anonymous_bytes() -> int:
    """Return this process's resident memory that no file backs (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def main() -> None:
    """Run the comparisons named on the command line, or all."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["worker"]:
        _worker(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    comparisons = {"size": compare_sizes, "arena": compare_arenas, "resident": compare_resident}
    for name in sys.argv[1:] or comparisons:
        comparisons[name]()


if __name__ == "__main__":
    main()
