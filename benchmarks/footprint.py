"""Compare predicted file sizes and memory with emitted files, and print what the models rest on.

    python benchmarks/footprint.py [size] [arena] [planned] [resident] [vela]

``size``: every network for every target and scheme, those of footprint_unseen.py too, which the
prediction was not made with.
``arena``: predicted against what TensorFlow Lite Micro reports on this machine (x86-64 build).
``planned``: predicted against what ``.pte`` files tell ExecuTorch to allocate.
``resident``: predicted against the growth of a process's anonymous memory on this machine, once a
model is loaded and has run on XNNPACK.
``vela``: predicted latency, arena and file for an Ethos-U against Vela's estimates and file.
Takes some minutes in all.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from footprint_networks import large_networks, small_networks
from footprint_unseen import WORDS, unseen_networks
from mlperf_tiny import FILES as MLPERF_TINY
from numpy.typing import NDArray
from torch import nn

from edgesdk.artifact import size_bytes
from edgesdk.compressed import CompressedModel
from edgesdk.cost.executorch_memory import planned_bytes
from edgesdk.cost.fusion import fuse
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import predict_size
from edgesdk.device import Runtime
from edgesdk.device_files import load_device
from edgesdk.document import from_builtins, to_json
from edgesdk.errors import EdgeSDKError
from edgesdk.figure import FigureName
from edgesdk.graph import OpGraph
from edgesdk.model_file import read_graph, scheme_of
from edgesdk.planner.prediction import predict_costs
from edgesdk.scheme import KEPT_AS, Scheme
from edgesdk.target import Emission, Session, find_target
from edgesdk.task import InputSpec, OutputSpec
from edgesdk.trace import trace
from edgesdk_executorch.program import read_program
from edgesdk_tflite.quiet import captured_output

SIZE_CASES: tuple[tuple[str, str, tuple[Scheme, ...]], ...] = (
    ("host", "executorch", ("fp32", "int8", "int8_dynamic", "int4_dynamic")),
    (
        "iphone_15_pro",
        "coreml",
        (
            "fp16",
            "int8",
            "w8",
            "w4",
            "lut8",
            "lut6",
            "lut4",
            "w8_sparse50",
            "lut4_sparse50",
        ),
    ),
    ("jetson_orin_nano_super", "onnx", ("fp32", "fp16", "int8")),
    ("host", "tflite", ("int8", "int8_dynamic", "int4_dynamic")),
    ("nucleo_h7a3zi_q", "tflite", ("fp32", "int8")),
    ("samsung_galaxy_s24", "tflite", ("fp16",)),
)
"""Device, target and schemes of the files to compare."""

NEAR_BYTES = 2000.0
NEAR_SHARE = 0.03
Network = tuple[nn.Module, tuple[int, ...]]
Floats = NDArray[np.float64]


def example_inputs(name: str, network: Network) -> tuple[torch.Tensor]:
    """Return noise of a network's shape, numbers of words where it reads such."""
    _, shape = network
    return (torch.randint(0, WORDS, shape) if name.startswith("token") else torch.randn(shape),)


def emit(
    network: Network, runtime: Runtime, scheme: Scheme, folder: Path, name: str = ""
) -> Emission:
    """Return what a target wrote for a network, calibrated on noise."""
    module, _ = network
    inputs = example_inputs(name, network)
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
                emission = emit(network, runtime, scheme, Path(folder), name)
            except EdgeSDKError as problem:
                print(f"  {name}: not emitted: {problem.found}")
                continue
            yield name, network, Path(folder), emission


def compare_sizes() -> None:
    """Print predicted and emitted sizes per target and scheme, and how many are near."""
    known, unseen = small_networks(), unseen_networks()
    found: dict[bool, list[bool]] = {False: [], True: []}
    for device, target, schemes in SIZE_CASES:
        for scheme in schemes:
            runtime = load_device(device).runtime_for(target)
            if scheme in ("w4", *KEPT_AS):  # which need iOS 18
                runtime = replace(runtime, minimum_version="iOS18")
            print(f"\n{target} {scheme}, {device}")
            for name, network, folder, emission in emitted({**known, **unseen}, runtime, scheme):
                graph = trace(network[0], example_inputs(name, network), name=name)
                size = size_bytes(folder, emission.files)
                figure = predict_size(graph, target, scheme, integer_io=runtime.integer_io)
                error = figure.value - size
                is_near = _near(figure.value, size)
                found[name in unseen].append(is_near)
                print(
                    f"  {name:20} {size:9} B  predicted {error:+7.0f} B"
                    f" ({100 * error / size:+.2f} %){'  unseen' if name in unseen else ''}"
                    f"{'' if is_near else '  beyond'}"
                )
    for is_unseen, near in found.items():
        what = "of unseen networks" if is_unseen else "of networks that the layout was read from"
        print(f"  {sum(near)} of {len(near)} files {what} within 3 % or 2 KB")


def _near(guess: float, size: float) -> bool:
    return abs(guess - size) <= max(NEAR_BYTES, NEAR_SHARE * size)


def _factor(ratios: Floats) -> float:
    distances = np.sort(np.abs(np.log(ratios)))
    return math.exp(distances[math.ceil(0.9 * len(distances)) - 1])


def compare_arenas() -> None:
    """Print predicted and reported arenas of TensorFlow Lite Micro, from file and from model."""
    runtime = load_device("nucleo_h7a3zi_q").runtime_for("tflite")
    ratios = []
    print("\nTensorFlow Lite Micro arena, files of MLPerf Tiny")
    for path in sorted(MLPERF_TINY.glob("*.tflite")):
        graph = read_graph(path)
        ratios += _compare_arena(path, {"file": graph}, runtime, scheme_of(graph))
    for scheme in runtime.precisions:
        print(f"\nTensorFlow Lite Micro arena, {scheme}")
        for name, (module, shape), folder, emission in emitted(small_networks(), runtime, scheme):
            path = folder / emission.files[0]
            before = trace(module, (torch.zeros(shape),), name=name)
            graphs = {"before emitting": before, "file": read_graph(path)}
            ratios += _compare_arena(path, graphs, runtime, scheme, name)
    if ratios:
        found = np.array(ratios)
        print(f"  {len(found)} predictions, the worst off by {_share(found.max(), found.min())}")


def _share(most: float, least: float) -> str:
    return f"{100 * max(most - 1, 1 - least):.2f} %"


def _compare_arena(
    path: Path, graphs: dict[str, OpGraph], runtime: Runtime, scheme: Scheme, name: str = ""
) -> list[float]:
    """Print one file's arena; return predicted over reported, nothing where it does not run."""
    from tflite_micro.python.tflite_micro import runtime as micro

    try:
        with captured_output() as output:
            micro.Interpreter.from_file(str(path), arena_size=1 << 26).print_allocations()
    except RuntimeError:
        print(f"  {name or path.stem}: does not run")
        return []
    arena = int(output.text.split("Arena allocation total ")[1].split()[0])
    ratios = {
        what: predict_memory(graph, runtime, scheme).value / arena for what, graph in graphs.items()
    }
    shown = ", ".join(f"{what} {ratio:.4f}" for what, ratio in ratios.items())
    print(f"  {name or path.stem:28} {arena:9} B  predicted: {shown}")
    return list(ratios.values())


def compare_planned() -> None:
    """Print the bytes that emitted ``.pte`` files plan, and what is predicted of them."""
    runtime = load_device("host").runtime_for("executorch")
    for scheme in runtime.precisions:
        print(f"\nExecuTorch planned buffers, {scheme}")
        for name, (module, shape), folder, emission in emitted(small_networks(), runtime, scheme):
            planned = read_program(folder, emission.files[0]).planned_bytes
            graph = trace(module, (torch.zeros(shape),), name=name)
            ratio = planned_bytes(fuse(graph), graph, scheme) / planned
            print(f"  {name:20} {planned:9} B  predicted {ratio:.3f}")


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
        session = find_target(name).open(place, emission, host_runtime.name, 1)
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


def compare_vela() -> None:
    """Print latency, arena and file size of networks for an Ethos-U, predicted and by Vela."""
    runtime = load_device("corstone_300").runtime_for("tflite")
    ratios: dict[FigureName, list[float]] = {}
    print("\nEthos-U55 (corstone_300), int8: predicted / Vela")
    for name, (module, shape), folder, emission in emitted(small_networks(), runtime, "int8"):
        graph = trace(module, (torch.zeros(shape),), name=name)
        predicted = predict_costs(graph, runtime, "int8")
        size = float(size_bytes(folder, emission.files))
        found = {name: figure.value for name, figure in emission.estimates.items()}
        told = []
        for figure, value in {**found, "size_bytes": size}.items():
            ratios.setdefault(figure, []).append(predicted[figure].value / value)
            told.append(f"{figure} {predicted[figure].value:.4g} / {value:.4g}")
        print(f"  {name:20} {'  '.join(told)}")
    for figure, values in ratios.items():
        median, factor = np.median(values), _factor(np.array(values))
        print(f"  {figure}: median {median:.2f}, factor that holds nine in ten {factor:.2f}")


def main() -> None:
    """Run the comparisons named on the command line, or all."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["worker"]:
        _worker(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    comparisons = {
        "size": compare_sizes,
        "arena": compare_arenas,
        "planned": compare_planned,
        "resident": compare_resident,
        "vela": compare_vela,
    }
    for name in sys.argv[1:] or comparisons:
        comparisons[name]()


if __name__ == "__main__":
    main()
