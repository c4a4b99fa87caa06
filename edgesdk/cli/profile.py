"""``edgesdk profile``: measure an artifact on a device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgesdk.cli.app import app, command
from edgesdk.cli.console import Answer
from edgesdk.cli.options import BinaryOption, LanOption, PythonOption, SshConfigOption
from edgesdk.progress import watching

if TYPE_CHECKING:
    from edgesdk.measurement import Measurement
    from edgesdk.profiling.profile import Profile

_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 60


OnOption = Annotated[
    str,
    typer.Option(
        "--on",
        help="Where: local, ssh:USER@HOST[:PORT], adb[:SERIAL], browser[:wasm|webgpu] or "
        "import:FILE.",
    ),
]
StandsForOption = Annotated[
    str | None,
    typer.Option("--device", help="Profile the numbers stand for; default: the artifact's."),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Default: the artifact's.")
]
SustainedOption = Annotated[
    str, typer.Option("--sustained", help="Go on for so long, as 60s: does it stay as fast?")
]
HooksOption = Annotated[
    bool, typer.Option("--hooks/--no-hooks", help="Also time operators, where that is possible")
]
OutOption = Annotated[
    Path | None, typer.Option("-o", "--out", help="Write the measurement there as JSON.")
]
TraceOption = Annotated[
    Path | None, typer.Option("--trace", help="Write a trace there, for ui.perfetto.dev.")
]


@command(app, "profile")
def profile_command(
    *, artifact: Annotated[Path, typer.Argument(metavar="OUT", help="The artifact folder.")],
    on: OnOption, device: StandsForOption = None, threads: ThreadsOption = None,
    sustained: SustainedOption = "0s", hooks: HooksOption = True,
    binary: BinaryOption = None, python: PythonOption = None, ssh_config: SshConfigOption = None,
    lan: LanOption = False, out: OutOption = None, trace: TraceOption = None,
) -> Answer:  # fmt: skip
    """Measure an artifact on a device and show it beside what was predicted.

    Nothing is written into the artifact; the measurement is kept in the local store.

    Example: edgesdk profile out --on local
    """
    from edgesdk.artifact import read_manifest
    from edgesdk.output import check_output
    from edgesdk.profiling.bench import Bench
    from edgesdk.profiling.job import Job
    from edgesdk.profiling.profile import profile_artifact

    for path in (out, trace):
        if path is not None:
            check_output(path)
    job = Job(
        folder=artifact,
        manifest=read_manifest(artifact),
        progress=watching.get(),
        bench=Bench(on=on, binary=binary, python=python, ssh_config=ssh_config, lan=lan),
        device=device,
        threads=threads,
        sustained_s=_seconds(sustained),
        hooks=hooks,
    )
    profile = profile_artifact(job)
    number = _keep(profile, out=out, trace=trace)
    failed = profile.measurement.answers_wrongly
    data = {**profile.to_json(), "status": "error" if failed else "ok", "number": number}
    return Answer(
        data=data,
        show=lambda console: _show(profile, number, console),
        exit_code=4 if failed else 0,
    )


def _keep(profile: Profile, *, out: Path | None, trace: Path | None) -> int:
    """Write the files that were asked for, store the measurement, and return its number."""
    from edgesdk.document import to_json
    from edgesdk.output import write_file
    from edgesdk.profiling.store import default_store
    from edgesdk.profiling.tracing import trace_text

    if out is not None:
        write_file(out, to_json(profile.measurement))
    if trace is not None:
        write_file(trace, trace_text(profile))
    return default_store().add(profile.measurement, label=profile.manifest.label)


def _seconds(text: str) -> float:
    from edgesdk.errors import UsageError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min)", text.strip())
    seconds = float(found[1]) * (60 if found[2] == "min" else 1) if found else -1.0
    if not 0 <= seconds <= 3600:
        raise UsageError(
            f"--sustained cannot be {text!r}", expected="a time up to one hour, as 60s or 2min"
        )
    return seconds


def _show(profile: Profile, number: int, console: Console) -> None:
    measurement = profile.measurement
    show_measurement(measurement, console)
    if profile.predicted is not None:
        figure = profile.predicted
        console.print(
            f"predicted {figure.value:.3f} ms, between {figure.low:.3f} and {figure.high:.3f}; "
            f"measured {measurement.p50_ms:.3f} ms",
            soft_wrap=True,
        )
    elif departures := profile.manifest.departures(measurement):
        console.print(
            f"no prediction beside it: what was measured ran {'; '.join(departures)}",
            soft_wrap=True,
        )
    if measurement.per_op is not None:
        _show_layers(profile, console)
    console.print(f"kept as measurement {number}")


def show_measurement(measurement: Measurement, console: Console) -> None:
    """Show one measurement to a person, the notes included."""
    identity = measurement.identity
    title = (
        f"{measurement.device}: {identity.runtime} {identity.version} on {identity.unit}, "
        f"{identity.threads} thread(s), {identity.platform}"
    )
    table = Table("load", "first", "minimum", "p50", "p90", "p99", "runs", title=title)
    fields = ("load_ms", "first_ms", "minimum_ms", "p50_ms", "p90_ms", "p99_ms")
    table.add_row(*(_ms(getattr(measurement, name)) for name in fields), str(measurement.runs))
    console.print(table)
    test = measurement.self_test
    if test is None:
        console.print("self-test: not told")
    else:
        ratio = "" if test.sqnr_db is None else f", {test.sqnr_db:.0f} dB"
        detail = f"; {test.detail}" if test.detail else ""
        console.print(
            f"self-test: {test.status}, {test.samples} samples{ratio}{detail}", soft_wrap=True
        )
    if measurement.peak_memory is not None:
        peak = measurement.peak_memory
        console.print(f"peak memory: {peak.bytes / 1e6:.1f} MB of the {peak.counts}")
    if measurement.sustained:
        console.print(_curve(measurement), soft_wrap=True)
    for note in measurement.notes:
        console.print(f"note: {note}", soft_wrap=True)


def _ms(value: float | None) -> str:
    return "not told" if value is None else f"{value:.3f} ms"


def _curve(measurement: Measurement) -> str:
    """Return the sustained run as a row of bars, the longest inference the highest."""
    medians = [piece.median_ms for piece in measurement.sustained]
    step = -(-len(medians) // _WIDEST)
    shown = [max(medians[at : at + step]) for at in range(0, len(medians), step)]
    highest = max(shown)
    levels = [round((len(_BARS) - 1) * value / highest) if highest else 0 for value in shown]
    last = measurement.sustained[-1]
    return (
        f"sustained: {''.join(_BARS[level] for level in levels)} {medians[0]:.3f} ms at first, "
        f"{last.median_ms:.3f} ms after {last.start_s:.0f} s, {max(medians):.3f} ms at most"
    )


def _show_layers(profile: Profile, console: Console) -> None:
    per_op = profile.measurement.per_op
    assert per_op is not None
    table = Table("layer", "predicted", "measured", title="Per layer")
    for item in profile.layers:
        cells = [
            "" if value is None else "below the clock" if value == 0 else f"{value:.4f} ms"
            for value in (item.predicted_ms, item.measured_ms)
        ]
        table.add_row(item.layer or "(no layer known)", *cells)
    rest = profile.measurement.p50_ms - per_op.total_ms
    table.add_row("(between operators)", "", f"{rest:.4f} ms")
    console.print(table)
    if profile.hook_overhead is None:
        told = f"{per_op.source} watched all inferences: what that cost is not known."
    else:
        told = (
            f"{per_op.source} saw the operators while an inference took {per_op.hooked_ms:.3f} ms, "
            f"{100 * profile.hook_overhead:.0f} % longer; measured times are scaled to p50."
        )
    console.print(told, soft_wrap=True)
