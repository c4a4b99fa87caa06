"""``edgesdk measurements``: what was measured, kept in the local store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgesdk.cli.app import command, measurements
from edgesdk.cli.console import Answer, schema_answer

if TYPE_CHECKING:
    from edgesdk.measurement import Measurement
    from edgesdk.profiling.store import Stored

_COMPARED = ("load_ms", "first_ms", "minimum_ms", "p50_ms", "p90_ms", "p99_ms")

NumberArgument = Annotated[
    int, typer.Argument(metavar="NUMBER", help="A measurement, as 'measurements list' numbers it.")
]


@command(measurements, "list")
def list_command(
    *,
    device: Annotated[str | None, typer.Option("--device", help="Only those of a device.")] = None,
) -> Answer:
    """List every stored measurement, the oldest first.

    Example: edgesdk measurements list
    """
    from edgesdk.profiling.store import default_store

    stored = [item for item in default_store().all() if device in (None, item.measurement.device)]
    rows = [_row(item) for item in stored]
    return Answer(
        data={"status": "ok", "measurements": rows}, show=lambda console: _show_list(rows, console)
    )


@command(measurements, "show")
def show_command(*, number: NumberArgument) -> Answer:
    """Show one stored measurement with its conditions and notes.

    Example: edgesdk measurements show 1
    """
    from edgesdk.cli.profile import show_measurement
    from edgesdk.document import to_builtins
    from edgesdk.profiling.store import default_store

    stored = default_store().get(number)
    return Answer(
        data={"status": "ok", **_row(stored), "measurement": to_builtins(stored.measurement)},
        show=lambda console: show_measurement(stored.measurement, console),
    )


@command(measurements, "compare")
def compare_command(
    *,
    first: Annotated[int, typer.Argument(metavar="A", help="Number of a measurement.")],
    second: Annotated[int, typer.Argument(metavar="B", help="Number of another.")],
) -> Answer:
    """Set two measurements side by side, and say what besides the artifact differs.

    Example: edgesdk measurements compare 1 2
    """
    from edgesdk.profiling.store import default_store

    store = default_store()
    pair = (store.get(first), store.get(second))
    data = _compare(*(item.measurement for item in pair))
    data |= {"a": _row(pair[0]), "b": _row(pair[1])}
    return Answer(data=data, show=lambda console: _show_compared(data, console))


@command(measurements, "export")
def export_command(
    *,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file to write; default: print it.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--number", help="Only this one, as a Measurement JSON.")
    ] = None,
) -> Answer:
    """Write stored measurements as JSON: all in one list, or one as a file that others read.

    Example: edgesdk measurements export -o measurements.json
    """
    from edgesdk.document import to_builtins
    from edgesdk.output import check_output, write_file
    from edgesdk.profiling.store import default_store

    destination = check_output(out) if out else None
    store = default_store()
    content: Any
    if number is not None:
        content = to_builtins(store.get(number).measurement)
    else:
        content = [
            {"number": item.number, "label": item.label, **to_builtins(item.measurement)}
            for item in store.all()
        ]
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if destination is not None:
        write_file(destination, text)
    shown = f"wrote {destination}" if destination else text.rstrip()
    return Answer(
        data={"status": "ok", "file": str(destination) if destination else None, "export": content},
        show=lambda console: console.print(shown, soft_wrap=True, highlight=False),
    )


@command(measurements, "schema")
def schema_command() -> Answer:
    """Print the JSON schema of a measurement, for whoever writes one.

    Example: edgesdk measurements schema
    """
    from edgesdk.measurement_file import measurement_schema

    return schema_answer(measurement_schema())


def _row(stored: Stored) -> dict[str, Any]:
    measurement = stored.measurement
    identity = measurement.identity
    return {
        "number": stored.number,
        "label": stored.label,
        "artifact_sha256": measurement.artifact_sha256,
        "device": measurement.device,
        "runtime": f"{identity.runtime} {identity.version}",
        "threads": identity.threads,
        "p50_ms": measurement.p50_ms,
        "self_test": measurement.self_test.status if measurement.self_test else None,
        "measured_at": measurement.measured_at,
        "measured_by": measurement.measured_by,
    }


def _show_list(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(
        "", "artifact", "file", "device", "runtime", "threads", "p50", "self-test", "when"
    )
    for row in rows:
        table.add_row(
            *(str(row["number"]), row["label"], row["artifact_sha256"][:8], row["device"]),
            *(row["runtime"], str(row["threads"]), f"{row['p50_ms']:.3f} ms"),
            row["self_test"] or "not told",
        )
    console.print(table)


def _compare(first: Measurement, second: Measurement) -> dict[str, Any]:
    """Return the figures of both, B as a share of A, and the conditions that differ."""
    pairs = {name: (getattr(first, name), getattr(second, name)) for name in _COMPARED}
    about = {
        "device": (first.device, second.device),
        "runtime": (first.identity.runtime, second.identity.runtime),
        "version": (first.identity.version, second.identity.version),
        "platform": (first.identity.platform, second.identity.platform),
        "unit": (first.identity.unit, second.identity.unit),
        "threads": (first.identity.threads, second.identity.threads),
        "batch_size": (first.batch_size, second.batch_size),
        "model": (first.hardware.model, second.hardware.model),
        "power_mode": (first.conditions.power_mode, second.conditions.power_mode),
        "measured_by": (first.measured_by, second.measured_by),
    }
    return {
        "status": "ok",
        "same_artifact": first.artifact_sha256 == second.artifact_sha256,
        "figures": {
            name: {"a": a, "b": b, "ratio": b / a if a and b is not None else None}
            for name, (a, b) in pairs.items()
        },
        "differs": {name: {"a": a, "b": b} for name, (a, b) in about.items() if a != b},
    }


def _show_compared(data: dict[str, Any], console: Console) -> None:
    table = Table("", f"A: {data['a']['label']}", f"B: {data['b']['label']}", "B / A")
    for name, pair in data["figures"].items():
        cells = ["not told" if pair[key] is None else f"{pair[key]:.3f}" for key in ("a", "b")]
        ratio = "" if pair["ratio"] is None else f"{pair['ratio']:.2f}"
        table.add_row(name, *cells, ratio)
    console.print(table)
    console.print("the same file" if data["same_artifact"] else "different files")
    for name, pair in data["differs"].items():
        console.print(f"{name}: {pair['a']} against {pair['b']}", soft_wrap=True)
    console.print("Measured at different times: a machine that drifts is in the ratio.")
