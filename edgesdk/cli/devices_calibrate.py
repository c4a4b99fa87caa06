"""``edgesdk devices calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgesdk.cli.app import command, devices
from edgesdk.cli.console import Answer
from edgesdk.progress import watching

if TYPE_CHECKING:
    from edgesdk.device import DeviceProfile


@command(devices, "calibrate")
def calibrate_command(
    name: Annotated[str, typer.Argument(help="host, or the device that was measured.")],
    measured: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="An artifact folder that was measured ('edgesdk profile' keeps what it measures), "
            "or a measurement's JSON file; repeatable.",
        ),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option("--threads", help="host only: thread counts, the default one first."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", help="host only: about how long it may take; default: 5min."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write; default: the user's own profiles."),
    ] = None,
) -> Answer:
    """Correct a profile by measurements: microbenchmarks on this machine, or a device's own.

    host takes about five minutes, the first time mostly conversion: whole networks that there is no
    time for are left out, and the same command goes on from what it has.

    Example: edgesdk devices calibrate host
    """
    from edgesdk.errors import UsageError

    if name == "host" and not measured:
        return _calibrate_host(threads, time, out)
    if threads or time:
        option = "--threads" if threads else "--time"
        raise UsageError(f"{option} is for microbenchmarks on this machine, not for measurements")
    if not measured:
        raise UsageError(
            f"nothing here can measure {name}",
            expected="measurements of it: --from OUT, the artifact folder or a measurement's file",
        )
    return _refine(name, measured, out)


def _calibrate_host(threads: list[int] | None, time: str | None, out: Path | None) -> Answer:
    from edgesdk.cache import Cache, default_root
    from edgesdk.calibrating.host import HOST, LIMIT_S, all_threads, calibrate_host
    from edgesdk.calibrating.microbenchmarks import microbenchmarks
    from edgesdk.effort import parse_seconds

    path = _destination(HOST, out)
    result = calibrate_host(
        microbenchmarks(),
        threads=threads or all_threads(),
        cache=Cache(default_root()),
        progress=watching.get(),
        limit_s=LIMIT_S if time is None else parse_seconds(time),
    )
    _write(path, result.profile)
    data = {
        "status": "ok",
        "device": HOST,
        "file": str(path),
        "networks": result.networks,
        "left_out": list(result.left_out),
        "spread": result.spread,
        "skipped": dict(result.skipped),
        "fits": _fits(result.profile),
    }
    return Answer(data=data, show=lambda console: _show_host(data, console))


def _refine(name: str, measured: list[Path], out: Path | None) -> Answer:
    from edgesdk.calibrating.refining import read_measured, refine
    from edgesdk.device_files import load_device
    from edgesdk.errors import MeasurementError
    from edgesdk.profiling.store import default_store

    device = load_device(name)
    path = _destination(device.name, out)
    stored = [item.measurement for item in default_store().all()]
    here = [item for item in stored if item.device == device.name]
    result = refine(device, read_measured(measured, here))
    kept = {" ".join(key): reason for key, reason in result.kept.items()}
    if len(kept) == len(result.pairs):
        raise MeasurementError(
            f"the coefficients of {device.name} are kept: "
            + "; ".join(f"{key}: {reason}" for key, reason in kept.items()),
            next_step="measure more artifacts of that target and scheme, of different size",
            details={"kept": kept},
        )
    _write(path, result.profile)
    data = {
        "status": "ok",
        "device": device.name,
        "file": str(path),
        "kept": kept,
        "pairs": {
            " ".join(key): [
                {"predicted_ms": predicted, "measured_ms": found} for predicted, found in pairs
            ]
            for key, pairs in result.pairs.items()
        },
        "fits": _fits(result.profile),
    }
    return Answer(data=data, show=lambda console: _show_refined(data, console))


def _destination(name: str, out: Path | None) -> Path:
    """Return where the profile goes: a new file, or the one in the user's folder, replaced."""
    from edgesdk.device_files import profile_folders
    from edgesdk.errors import UsageError
    from edgesdk.output import check_output

    if out is None:
        return profile_folders()[1] / f"{name}.toml"
    if out.name != f"{name}.toml":
        raise UsageError(
            f"a profile of {name} cannot be in a file named {out.name}",
            expected=f"a file named {name}.toml",
        )
    return check_output(out)


def _write(path: Path, profile: DeviceProfile) -> None:
    from edgesdk.device_text import profile_text
    from edgesdk.output import replace_file

    replace_file(path, profile_text(profile))


def _fits(profile: DeviceProfile) -> list[dict[str, Any]]:
    return [
        {
            "target": runtime.target,
            "threads": runtime.threads,
            "scheme": scheme,
            "median_error": cost.median_error.value if cost.median_error else None,
            "error_factor": cost.error_factor.value,
            "kind": cost.mac_per_s.kind,
        }
        for runtime in profile.runtime
        for scheme, cost in runtime.precisions.items()
    ]


def _show_fits(data: dict[str, Any], console: Console) -> None:
    table = Table("target", "threads", "scheme", "median error", "error factor", "kind")
    for fit in data["fits"]:
        error = fit["median_error"]
        table.add_row(
            *(fit["target"], str(fit["threads"]), fit["scheme"]),
            *("unknown" if error is None else f"{100 * error:.0f} %",),
            *(f"{fit['error_factor']:.2f}", fit["kind"]),
        )
    console.print(table)


def _show_host(data: dict[str, Any], console: Console) -> None:
    _show_fits(data, console)
    console.print(
        f"Errors are those of whole small networks, each left out of the fit in turn, among "
        f"{data['networks']} microbenchmarks. A typical round took {data['spread']:.2f} times the "
        "least disturbed one.",
        soft_wrap=True,
    )
    if data["left_out"]:
        console.print(
            f"No time was left to convert {len(data['left_out'])} more. The same command goes on "
            "from what it has, or give it longer: --time 10min",
            soft_wrap=True,
        )
    for what, reason in data["skipped"].items():
        console.print(f"Skipped {what}: {reason}", soft_wrap=True)
    console.print(f"wrote {data['file']}: it stands for {data['device']} from now on")


def _show_refined(data: dict[str, Any], console: Console) -> None:
    _show_fits(data, console)
    for what, reason in data["kept"].items():
        console.print(f"Coefficients kept, {what}: {reason}", soft_wrap=True)
    console.print(f"wrote {data['file']}", soft_wrap=True)
