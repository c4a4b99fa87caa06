"""The data of a report: what every view of an artifact shows, and nothing computed twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from edgesdk.artifact import FieldRun, OpCount, Parity
from edgesdk.budget import Verdict
from edgesdk.figure import Figure, FigureName
from edgesdk.layer_change import LayerChanges
from edgesdk.measurement import Measurement
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One figure in every standing it is known in; ``best`` is what a condition is judged by."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    figure: FigureName
    best: Figure | None
    baseline: Figure | None
    predicted: Figure | None
    proven: Figure | None
    measured: Figure | None


@dataclass(frozen=True, kw_only=True)
class ElsewhereRow:
    """What is predicted of one figure on another device of the fleet."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    device: str
    figure: FigureName
    predicted: Figure


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A prediction beside what turned out: ``ratio`` is known over predicted.

    ``within`` says whether the known value lies in the prediction's 90 % interval.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    figure: FigureName
    predicted: Figure
    known: Figure
    ratio: float
    within: bool


@dataclass(frozen=True, kw_only=True)
class PlanOption:
    """An option of the plan with its predictions; ``reason`` says why it was not taken.

    ``is_efficient``: no other option of the plan is predicted both faster and closer to the
    original (smaller, where the task has no metric).
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    option: str
    is_chosen: bool
    is_efficient: bool
    predicted: Mapping[FigureName, Figure]
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReportFile:
    """A file for the runtime: its bytes and SHA-256 (a folder's files and their names together)."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class MeasuredLayer:
    """What a layer's operators took in a measurement, and what was predicted for the layer.

    ``layer`` is None for operators that nothing joins to a layer.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    layer: str | None
    measured_ms: float
    predicted_ms: float | None


@dataclass(frozen=True, kw_only=True)
class ReportMeasurement:
    """A measurement of the artifact, and its operators' times summed by layer.

    ``latency``: its median, from the least inference to the 90th percentile. ``departures`` say in
    what it is not what the artifact was made for (device, runtime, unit, threads); without any, it
    judges the budget and stands beside ``predicted``. ``number`` is the local store's.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    measurement: Measurement
    number: int | None
    latency: Figure
    predicted: Figure | None
    departures: tuple[str, ...]
    layers: tuple[MeasuredLayer, ...]


@dataclass(frozen=True, kw_only=True)
class ArtifactData:
    """Everything a report says of one artifact; ``label`` names it among the others.

    ``status`` is "kept" where every condition is met, "missed" where a measurement made since
    refutes one, "no budget" where there is none. ``device_commands`` are run once on the device,
    before the artifact works there; ``commands`` reproduce it from its folder.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    label: str
    task: str
    device: str
    target: str
    delegate: str
    runtime: str
    minimum_runtime: str
    scheme: Scheme
    threads: int
    batch_size: int
    status: Literal["kept", "missed", "no budget"]
    option: str
    files: tuple[ReportFile, ...]
    plan_sha256: str
    verdicts: tuple[Verdict, ...]
    figures: tuple[FigureRow, ...]
    agreements: tuple[Agreement, ...]
    parity: Parity
    parity_note: str
    operators: tuple[OpCount, ...]
    options: tuple[PlanOption, ...]
    cautions: tuple[str, ...]
    reasons: tuple[str, ...]
    steps: tuple[str, ...]
    layers: LayerChanges
    elsewhere: tuple[ElsewhereRow, ...]
    measurements: tuple[ReportMeasurement, ...]
    tool_versions: Mapping[str, str]
    device_commands: tuple[str, ...]
    field_runs: tuple[FieldRun, ...]
    commands: tuple[str, ...]

    def figure(self, name: FigureName) -> FigureRow | None:
        """Return the row of a figure, None where nothing is known of it."""
        return next((row for row in self.figures if row.figure == name), None)


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One figure of every artifact, in their order: the best standing there is, None if unknown."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    figure: FigureName
    best: tuple[Figure | None, ...]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """A report: the artifacts side by side, then each; what ``report --json`` prints."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    artifacts: tuple[ArtifactData, ...]
    comparison: tuple[ComparisonRow, ...]
    edgesdk_version: str
    schema_version: Literal[1] = 1
