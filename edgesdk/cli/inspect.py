"""``edgesdk inspect``: what a model computes, layer by layer, and what it costs on a device."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgesdk.cli.app import app, command
from edgesdk.cli.console import Answer
from edgesdk.cli.options import PickleOption, TargetOption, TaskArgument
from edgesdk.progress import watching

if TYPE_CHECKING:
    from edgesdk.device import Runtime
    from edgesdk.graph import OpGraph
    from edgesdk.scheme import Scheme


@command(app, "inspect")
def inspect_command(
    task: TaskArgument,
    device: Annotated[
        str | None, typer.Option("--device", help="Also predict milliseconds on this device.")
    ] = None,
    target: TargetOption = None,
    allow_pickle: PickleOption = False,
) -> Answer:
    """Show per layer the output shape, parameters, MACs, activation bytes and predicted time.

    A .tflite file in the task's place is read as it is, in its own precision.

    Example: edgesdk inspect demo:digits --device samsung_galaxy_s24
    """
    from edgesdk.device_files import load_device
    from edgesdk.model_file import is_model_file, read_graph, scheme_of

    profile = load_device(device) if device else None
    runtime = profile.runtime_for(target) if profile else None
    if is_model_file(task):
        graph = read_graph(Path(task))
        scheme = scheme_of(graph)
    else:
        graph = _trace(task, allow_pickle=allow_pickle)
        scheme = runtime.float_scheme if runtime else "fp32"
    data = {
        "status": "ok",
        "task": graph.model,
        "device": profile.name if profile else None,
        "target": runtime.target if runtime else None,
        "scheme": scheme if runtime else None,
        **describe_graph(graph, runtime, scheme),
    }
    return Answer(data=data, show=lambda console: _show(data, console))


def _trace(task: str, *, allow_pickle: bool) -> OpGraph:
    from edgesdk.task_check import check_task
    from edgesdk.task_source import load_task
    from edgesdk.trace import trace

    loaded = load_task(task, allow_pickle=allow_pickle)
    watching.get().step("Tracing the model")
    check_task(loaded)
    return trace(loaded.model, loaded.example_inputs, name=loaded.name)


def describe_graph(graph: OpGraph, runtime: Runtime | None, scheme: Scheme) -> dict[str, Any]:
    """Return the rows of ``inspect`` (one an operator) and their totals, in that precision."""
    from edgesdk.cost.fusion import activation_bytes
    from edgesdk.cost.latency import predict_latency
    from edgesdk.cost.memory import predict_memory

    predicted_ms: dict[str, float] = defaultdict(float)
    total: dict[str, Any] = {
        "predicted_ms": None,
        "predicted_interval_ms": None,
        "predicted_memory_bytes": None,
        "predicted_interval_memory_bytes": None,
    }
    if runtime is not None:
        prediction = predict_latency(graph, runtime, scheme)
        for kernel in prediction.per_op:
            predicted_ms[kernel.op] += kernel.latency_ms
        total["predicted_ms"] = prediction.total.value
        total["predicted_interval_ms"] = [prediction.total.low, prediction.total.high]
        total["overhead_ms"] = prediction.overhead_ms
        total["unpriced"] = list(prediction.unpriced)
        memory = predict_memory(graph, runtime, scheme)
        total["predicted_memory_bytes"] = memory.value
        total["predicted_interval_memory_bytes"] = [memory.low, memory.high]
    layers = [
        {
            "op": op.name,
            "layer": op.layer,
            "kind": op.kind,
            "output_shape": list(graph.tensors[op.outputs[0]].shape),
            "parameters": graph.elements(op.parameters),
            "macs": op.macs,
            "activation_bytes": activation_bytes(graph, op.outputs, scheme),
            "predicted_ms": predicted_ms.get(op.name, 0.0) if runtime is not None else None,
        }
        for op in graph.ops
    ]
    return {
        "layers": layers,
        "total": {"parameters": graph.parameters, "macs": graph.macs, **total},
    }


def _show(data: dict[str, Any], console: Console) -> None:
    with_time = data["device"] is not None
    title = f"{data['task']} on {data['device']} in {data['scheme']}" if with_time else data["task"]
    table = Table(title=title)
    table.add_column("layer")
    table.add_column("operator")
    for name in ("output", "parameters", "MACs", "activation B", *(["ms"] if with_time else [])):
        table.add_column(name, justify="right")
    for row in data["layers"]:
        cells = [
            row["layer"] or "(forward)",
            row["kind"],
            "x".join(str(size) for size in row["output_shape"]),
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
            f"{row['activation_bytes']:,.0f}",
        ]
        table.add_row(*cells, *([f"{row['predicted_ms']:.4f}"] if with_time else []))
    console.print(table)
    total = data["total"]
    console.print(f"{total['parameters']:,} parameters, {total['macs']:,} MACs")
    if with_time:
        low, high = total["predicted_interval_ms"]
        console.print(
            f"predicted {total['predicted_ms']:.3f} ms, between {low:.3f} and {high:.3f} nine "
            f"times out of ten; {total['overhead_ms']:.3f} ms of it before the first operator. "
            "0 ms: fused into another operator or only renaming bytes."
        )
        low, high = total["predicted_interval_memory_bytes"]
        console.print(
            f"predicted {total['predicted_memory_bytes']:,.0f} bytes of memory, between "
            f"{low:,.0f} and {high:,.0f}, beside what the runtime itself takes."
        )
