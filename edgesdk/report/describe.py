"""Describe an artifact for its reports: every figure in its standing, judged, set side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from edgesdk.artifact import PLAN, Manifest, sha256_of, size_bytes
from edgesdk.budget import Verdict, judge
from edgesdk.caution import cautions
from edgesdk.figure import TITLES, Figure, FigureName, Figures, best_figure
from edgesdk.layer_change import LayerChanges
from edgesdk.measurement import Measurement, latency_figure
from edgesdk.plan import Plan
from edgesdk.report.data import (
    Agreement,
    ArtifactData,
    ComparisonRow,
    ElsewhereRow,
    FigureRow,
    MeasuredLayer,
    PlanOption,
    ReportData,
    ReportFile,
    ReportMeasurement,
)
from edgesdk.report.words import budget_flags, explain_step, shell_line

# A drop may be zero or negative, so no prediction of it can be off by a factor.
_WITHOUT_RATIO: tuple[FigureName, ...] = ("accuracy", "accuracy_drop")


def describe_report(artifacts: Sequence[ArtifactData]) -> ReportData:
    """Return the report of those artifacts, what is known of each set side by side."""
    rows = [
        ComparisonRow(figure=name, best=tuple(_best(artifact, name) for artifact in artifacts))
        for name in TITLES
    ]
    return ReportData(
        artifacts=tuple(artifacts),
        comparison=tuple(row for row in rows if any(row.best)),
        edgesdk_version=metadata.version("edgesdk"),
    )


def describe_artifact(
    folder: Path, manifest: Manifest, plan: Plan, layers: LayerChanges, *, label: str,
    measurements: Mapping[Measurement, int | None] = MappingProxyType({}),
) -> ArtifactData:  # fmt: skip
    """Return the data of the artifact in ``folder``, whose hashes were checked (or are being made).

    ``measurements`` are of this very artifact, with their numbers in the local store. Those taken
    as it is meant to run judge its budget again, each condition by the slowest of them.
    """
    measured = _measured(manifest, tuple(measurements))
    sections = [measured, manifest.verified, manifest.interpreted, manifest.predicted]
    verdicts = _judged(manifest, measured, sections)
    figures = _figure_rows(manifest, measured)
    sealed = {manifest.measurement: None} if manifest.measurement else {}
    given: dict[Measurement, int | None] = {**sealed, **measurements}
    return ArtifactData(
        label=label,
        task=manifest.task,
        device=manifest.device,
        target=manifest.target,
        delegate=manifest.delegate,
        runtime=manifest.runtime,
        minimum_runtime=manifest.minimum_runtime,
        scheme=manifest.scheme,
        threads=manifest.threads,
        batch_size=manifest.batch_size,
        status=_status(verdicts),
        option=plan.option,
        files=tuple(_file(folder, name) for name in manifest.files),
        plan_sha256=manifest.plan_sha256,
        verdicts=verdicts,
        figures=figures,
        agreements=_agreements(figures),
        parity=manifest.parity,
        parity_note=manifest.host_runtime.note if manifest.host_runtime else "",
        operators=manifest.operators,
        options=_options(plan),
        cautions=(
            *cautions(verdicts, sections),
            *(caution for item in given for caution in _wrong_answers(item)),
        ),
        reasons=plan.reasons,
        steps=tuple(explain_step(step) for step in plan.steps),
        layers=layers,
        elsewhere=_elsewhere_rows(manifest),
        measurements=tuple(
            _measurement(item, number, manifest, layers) for item, number in given.items()
        ),
        tool_versions=manifest.tool_versions,
        device_commands=manifest.device_commands,
        field_runs=manifest.field_runs,
        commands=_commands(manifest, label),
    )


def _file(folder: Path, name: str) -> ReportFile:
    size, digest = size_bytes(folder, (name,)), sha256_of(folder / name)
    return ReportFile(name=name, size_bytes=size, sha256=digest)


def _best(artifact: ArtifactData, name: FigureName) -> Figure | None:
    row = artifact.figure(name)
    return row.best if row else None


def _measured(manifest: Manifest, measurements: Sequence[Measurement]) -> Figures:
    """Return what was measured on the artifact's device; of several, the worst of each.

    How fast wrong answers came judges nothing.
    """
    measured = dict(manifest.measured)
    for measurement in measurements:
        if manifest.is_of_its_device(measurement) and not measurement.answers_wrongly:
            for name, figure in _figures_of(measurement).items():
                if name not in measured or figure.value > measured[name].value:
                    measured[name] = figure
    return measured


def _wrong_answers(measurement: Measurement) -> tuple[str, ...]:
    """Return the caution for a measurement of something that computes wrongly."""
    if not measurement.answers_wrongly:
        return ()
    identity = measurement.identity
    return (
        f"the self-test failed on {measurement.device} ({identity.runtime} {identity.version}, "
        f"{identity.unit}): what it computes there is wrong, and how fast is not counted",
    )


def _figures_of(measurement: Measurement) -> Figures:
    """Return what a measurement says of a budget's figures.

    Peak memory is left out: a whole process counts what a budget does not.
    """
    figures: dict[FigureName, Figure] = {"latency_ms": latency_figure(measurement)}
    if measurement.energy is not None:
        energy = measurement.energy
        figures["energy_mj"] = Figure(
            value=energy.inference_mj, standing="measured", source=energy.source
        )
    return figures


def _judged(manifest: Manifest, measured: Figures, sections: list[Figures]) -> tuple[Verdict, ...]:
    """Return the sealed verdicts, those that a later measurement touches judged again."""
    changed = {name for name, figure in measured.items() if manifest.measured.get(name) != figure}
    return tuple(
        judge(verdict.condition, sections)
        if verdict.condition.figure in changed and not verdict.condition.device
        else verdict
        for verdict in manifest.budget
    )


def _status(verdicts: Sequence[Verdict]) -> Literal["kept", "missed", "no budget"]:
    if not verdicts:
        return "no budget"
    return "kept" if all(verdict.met for verdict in verdicts) else "missed"


def _figure_rows(manifest: Manifest, measured: Figures) -> tuple[FigureRow, ...]:
    proven = {**manifest.interpreted, **manifest.verified}
    sections = [measured, manifest.verified, manifest.interpreted, manifest.predicted]
    return tuple(
        FigureRow(
            figure=name,
            best=best_figure(name, sections),
            baseline=manifest.baseline.get(name),
            predicted=manifest.predicted.get(name),
            proven=proven.get(name),
            measured=measured.get(name),
        )
        for name in TITLES
        if any(name in section for section in (*sections, manifest.baseline))
    )


def _elsewhere_rows(manifest: Manifest) -> tuple[ElsewhereRow, ...]:
    return tuple(
        ElsewhereRow(device=device, figure=name, predicted=figures[name])
        for device, figures in manifest.elsewhere.items()
        for name in TITLES
        if name in figures
    )


def _agreements(figures: Sequence[FigureRow]) -> tuple[Agreement, ...]:
    found = []
    for row in figures:
        known, guess = row.best, row.predicted
        if known is None or guess is None or known.standing == "predicted":
            continue
        if row.figure in _WITHOUT_RATIO or guess.value <= 0:
            continue
        assert guess.low is not None
        assert guess.high is not None
        found.append(
            Agreement(
                figure=row.figure,
                predicted=guess,
                known=known,
                ratio=known.value / guess.value,
                within=guess.low <= known.value <= guess.high,
            )
        )
    return tuple(found)


def _options(plan: Plan) -> tuple[PlanOption, ...]:
    """Return the plan's options, the chosen one first, marked where no other is better twice."""
    chosen = PlanOption(
        option=plan.option,
        is_chosen=True,
        is_efficient=False,
        predicted=plan.predicted,
        reason="taken",
    )
    others = [
        PlanOption(
            option=item.option,
            is_chosen=False,
            is_efficient=False,
            predicted=item.predicted,
            reason=item.reason,
        )
        for item in plan.rejected
    ]
    # The front goes further than the best that were rejected, and may name some of them again.
    seen = [(option.option, option.predicted) for option in (chosen, *others)]
    front = [
        PlanOption(
            option=point.option,
            is_chosen=False,
            is_efficient=False,
            predicted=point.predicted,
            reason="fits, not taken" if point.fits else "does not fit",
        )
        for point in plan.front
        if not point.chosen and (point.option, point.predicted) not in seen
    ]
    options = [chosen, *others, *front]
    axes = pareto_axes(options)
    return tuple(
        replace(option, is_efficient=_is_efficient(option, options, axes)) for option in options
    )


def pareto_axes(options: Sequence[PlanOption]) -> tuple[FigureName, FigureName]:
    """Return the two figures that options are compared by: latency, and drop or else size."""
    scored = all("accuracy_drop" in option.predicted for option in options)
    return "latency_ms", "accuracy_drop" if scored else "size_bytes"


def _is_efficient(
    option: PlanOption, options: Sequence[PlanOption], axes: tuple[FigureName, FigureName]
) -> bool:
    point = _point(option.predicted, axes)
    if point is None:
        return False
    others = (_point(other.predicted, axes) for other in options)
    return not any(
        other is not None
        and all(theirs <= ours for theirs, ours in zip(other, point, strict=True))
        and other != point
        for other in others
    )


def _point(
    predicted: Mapping[FigureName, Figure], axes: tuple[FigureName, FigureName]
) -> tuple[float, float] | None:
    if not all(axis in predicted for axis in axes):
        return None
    return predicted[axes[0]].value, predicted[axes[1]].value


def _measurement(
    measurement: Measurement, number: int | None, manifest: Manifest, layers: LayerChanges
) -> ReportMeasurement:
    """Return a measurement with its operators summed by layer, in order of execution."""
    departures = manifest.departures(measurement)
    predicted: dict[str, float] = {}
    if not departures:
        predicted = {item.layer: item.after.predicted_ms for item in layers.layers if item.after}
    spent: dict[str | None, float] = {}
    for op in measurement.per_op.ops if measurement.per_op else ():
        spent[op.layer] = spent.get(op.layer, 0.0) + op.ms
    return ReportMeasurement(
        measurement=measurement,
        number=number,
        latency=latency_figure(measurement),
        predicted=None if departures else manifest.predicted.get("latency_ms"),
        departures=departures,
        layers=tuple(
            MeasuredLayer(
                layer=layer,
                measured_ms=measured_ms,
                predicted_ms=None if layer is None else predicted.get(layer),
            )
            for layer, measured_ms in spent.items()
        ),
    )


def _commands(manifest: Manifest, label: str) -> tuple[str, ...]:
    """Return the commands that check the artifact, replay its plan and search for it anew."""
    task = manifest.task_reference or "TASK"
    devices = (manifest.device, *manifest.elsewhere)
    named = (word for name in devices for word in ("--device", name))
    made_for = (*named, "--target", manifest.target)
    return (
        f"(cd {shell_line(label)} && sha256sum --check manifest.sha256)",
        shell_line("edgesdk", "verify", label, "--task", task),
        shell_line(
            "edgesdk", "compile", task, *made_for, "--plan", f"{label}/{PLAN}", "-o", "replayed"
        ),
        shell_line(
            "edgesdk", "compile", task, *made_for, *budget_flags(manifest.budget), "-o", "anew"
        ),
    )
