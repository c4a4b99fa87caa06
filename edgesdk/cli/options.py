"""Options that several commands share, each with the help that teaches it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TaskArgument = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="What to compile: demo:NAME, path/to/file.py:function or package.module:function; "
        "the function takes nothing and returns an edgesdk.Task. Or a model alone: FILE.pt2, a "
        "Hugging Face model folder (random:FOLDER for random weights), timm:NAME.",
    ),
]
PickleOption = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Also read a model folder's pickled weights (.bin); only where you trust its maker.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="The device; 'edgesdk devices list' names them.")
]
DevicesOption = Annotated[
    list[str],
    typer.Option(
        "--device",
        help="The device; 'edgesdk devices list' names them. Given several times: one file that "
        "keeps the budget on each of them.",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", help="executorch, coreml, tflite or onnx; default: the device's own."),
]
DelegateOption = Annotated[
    str | None,
    typer.Option(
        "--delegate",
        help="The target's back end that executes the file: xnnpack, vulkan or coreml for "
        "executorch; default: the device's first.",
    ),
]
LatencyOption = Annotated[
    str | None,
    typer.Option("--latency", help="Median inference, as 8ms, or 25% of the float baseline."),
]
MemoryOption = Annotated[
    str | None, typer.Option("--memory", help="Peak RAM, as 4MB, 512KiB or 50%.")
]
SizeOption = Annotated[
    str | None, typer.Option("--size", help="Bytes of the runtime's files, as 150KB or 30%.")
]
DownloadOption = Annotated[
    str | None, typer.Option("--download", help="The same files once compressed, as 100KB or 25%.")
]
EnergyOption = Annotated[
    str | None, typer.Option("--energy", help="Energy per inference, as 3mJ or 50%.")
]
DropOption = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        help="Most that the metric may lose, in its own range: 1% and 0.01 are both one point.",
    ),
]
EffortOption = Annotated[
    str,
    typer.Option(
        "--effort",
        help="Training to win accuracy back: quick (none), standard (minutes) or thorough.",
    ),
]
TimeOption = Annotated[
    str | None,
    typer.Option("--time", help="Most time for training altogether, as 30min or 2h."),
]
SchemeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scheme",
        help="Choose among these precisions only: fp32, fp16, int8, w8a16, int8_dynamic, "
        "int4_dynamic, w8, w4, lut8, lut6, lut4, w8_sparse50 or lut4_sparse50; given once for "
        "each. Default: all that target and device offer.",
    ),
]
AcceleratorOption = Annotated[
    str, typer.Option("--accelerator", help="Where training runs: auto, cpu, cuda or mps.")
]
WorkersOption = Annotated[
    str,
    typer.Option(
        "--workers",
        help="Who measures sensitivities and trains: 1 (this process), a number of processes, each "
        "with its share of the cores and a copy of the task in memory, or a Ray cluster: "
        "ray://HOST:PORT, ray:auto. Latency is always clocked here, while workers rest.",
    ),
]
BinaryOption = Annotated[
    Path | None, typer.Option("--binary", help="adb: benchmark_model or executor_runner.")
]
PythonOption = Annotated[
    str | None, typer.Option("--python", help="ssh: the Python there that has the runtime.")
]
LanOption = Annotated[
    bool,
    typer.Option("--lan", help="browser: let phones on this network open the page, not only here."),
]
SshConfigOption = Annotated[
    Path | None, typer.Option("--ssh-config", help="ssh: its configuration file, as ssh -F.")
]
