"""``edgesdk devices fit``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgesdk.cli.app import command, devices
from edgesdk.cli.console import Answer

if TYPE_CHECKING:
    from edgesdk.cost.refit import Refit


@command(devices, "fit")
def fit_command(
    evidence: Annotated[Path, typer.Argument(help="Measurements: a CSV file.")],
    graphs: Annotated[
        list[Path],
        typer.Option("--graphs", help="Folder of MODEL.json.gz and MODEL.tflite; repeatable."),
    ],
    suspects: Annotated[
        Path | None,
        typer.Option("--suspects", help="TOML file of rows to leave out, each with its reason."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the profiles that change; default: none."),
    ] = None,
) -> Answer:
    """Fit the latency coefficients of all profiles to measurements, judged on networks left out.

    Example: edgesdk devices fit published_latency.csv --graphs graphs -o fitted
    """
    from edgesdk.cost.published import read_graphs, read_rows, read_suspects
    from edgesdk.cost.refit import refit
    from edgesdk.device_files import load_device, profile_names

    rows = read_rows(evidence)
    known, unread = read_graphs(graphs)
    profiles = [load_device(name) for name in profile_names()]
    result = refit(
        profiles,
        rows,
        known,
        read_suspects(suspects) if suspects else (),
        source=f"{_published_in(rows)}; edgesdk devices fit {evidence.name}",
    )
    changed = [new for old, new in zip(profiles, result.profiles, strict=True) if new != old]
    written = _write(changed, out) if out else []
    data = {
        "status": "ok",
        "rows": len(rows),
        "used": result.selection.used,
        "left_out": dict(result.selection.left_out),
        "graphs_not_read": unread,
        "kept": {
            f"{delegate} on {unit}": reason for (delegate, unit, _), reason in result.kept.items()
        },
        "fits": _fits(result),
        "changed": [profile.name for profile in changed],
        "written": written,
    }
    return Answer(data=data, show=lambda console: _show(data, console))


def _published_in(rows: Sequence[Any]) -> str:
    """Return who published the rows, without the round or version, in short."""
    names = {row.source.split("-v")[0].split("@")[0] for row in rows if row.source}
    return ", ".join(sorted(names)) or "measurements without a source"


def _write(profiles: Sequence[Any], out: Path) -> list[str]:
    from edgesdk.device_text import profile_text
    from edgesdk.output import check_output, writing

    with writing(check_output(out)) as folder:
        for profile in profiles:
            (folder / f"{profile.name}.toml").write_text(profile_text(profile), encoding="utf-8")
    return [str(out / f"{profile.name}.toml") for profile in profiles]


def _fits(result: Refit) -> list[dict[str, Any]]:
    return [
        {
            "device": board,
            "delegate": delegate,
            "unit": unit,
            "scheme": scheme,
            "networks": cost.networks,
            "median_error": cost.median_error.value if cost.median_error else None,
            "error_factor": cost.error_factor.value,
            "kind": cost.mac_per_s.kind,
        }
        for (delegate, unit, _), fit in result.fits.items()
        for (scheme, board, _), cost in fit.costs.items()
    ]  # fmt: skip


def _show(data: dict[str, Any], console: Console) -> None:
    table = Table("device", "runs on", "scheme", "networks", "median error", "error factor", "kind")
    for fit in data["fits"]:
        table.add_row(
            *(fit["device"], f"{fit['delegate']} on {fit['unit']}", fit["scheme"]),
            *(str(fit["networks"]), f"{100 * fit['median_error']:.0f} %"),
            *(f"{fit['error_factor']:.2f}", fit["kind"]),
        )
    console.print(table)
    console.print("Errors are those of predictions for networks that were left out, by scheme.")
    console.print(f"Of {data['rows']} rows, the fits rest on {data['used']}. Left out:")
    for reason, count in sorted(data["left_out"].items(), key=lambda item: -item[1]):
        console.print(f"  {count} {reason}", soft_wrap=True)
    for name, reason in data["graphs_not_read"].items():
        console.print(f"Graph not read: {name}: {reason}", soft_wrap=True)
    for pool, reason in data["kept"].items():
        console.print(f"Coefficients kept, {pool}: {reason}", soft_wrap=True)
    for path in data["written"]:
        console.print(f"wrote {path}", soft_wrap=True)
