"""What compiling or planning answers: the artifact or the refusal, and every figure behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgesdk.artifact import Parity
from edgesdk.budget import Verdict
from edgesdk.caution import cautions
from edgesdk.document import to_builtins
from edgesdk.figure import Figure, FigureName, Figures
from edgesdk.plan import Plan
from edgesdk.planner.search import Feasibility

Status = Literal["ok", "infeasible"]

# The names that --json always carries in each section, null where unknown.
_SHOWN: tuple[FigureName, ...] = (
    "latency_ms",
    "size_bytes",
    "memory_bytes",
    "download_bytes",
    "energy_mj",
    "accuracy",
    "accuracy_drop",
)


@dataclass(frozen=True, kw_only=True)
class CompileResult:
    """The outcome of ``compile`` or ``plan``.

    ``artifact`` is the folder, None when nothing was written. ``plan`` is the plan carried out,
    or the nearest one when ``status`` is "infeasible"; ``binding`` then names the condition that
    comes least close. ``verdicts`` judge every condition by the best standing there is.
    ``parity`` says whether the file was run here and how closely it follows PyTorch, None where
    nothing was emitted. ``elsewhere`` predicts the figures on the fleet's other devices.
    """

    status: Status
    device: str
    target: str
    artifact: Path | None
    files: tuple[str, ...]
    plan: Plan
    baseline: Figures
    predicted: Figures
    verified: Figures
    interpreted: Figures
    measured: Figures
    verdicts: tuple[Verdict, ...]
    feasibility: tuple[Feasibility, ...]
    binding: FigureName | None = None
    reason: str = ""
    parity: Parity | None = None
    elsewhere: Mapping[str, Figures] = field(default_factory=dict)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What the budget does not forbid and nobody should overlook."""
        known = (self.measured, self.verified, self.interpreted, self.predicted)
        return cautions(self.verdicts, known)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "status": self.status,
            "device": self.device,
            "target": self.target,
            "artifact": str(self.artifact) if self.artifact else None,
            "files": list(self.files),
            "option": self.plan.option,
            "plan": [to_builtins(step) for step in self.plan.steps],
            "reasons": list(self.plan.reasons),
            "rejected": [to_builtins(item) for item in self.plan.rejected],
            "baseline": section(self.baseline),
            "predicted": section(self.predicted),
            "verified": section(self.verified),
            "interpreted": section(self.interpreted),
            "measured": section(self.measured),
            "elsewhere": {name: section(figures) for name, figures in self.elsewhere.items()},
            "budget": [to_builtins(verdict) for verdict in self.verdicts],
            "cautions": list(self.cautions),
            "feasibility": [to_builtins(row) for row in self.feasibility],
            "binding": self.binding,
            "reason": self.reason,
            "parity": to_builtins(self.parity) if self.parity else None,
        }


def section(figures: Mapping[FigureName, Figure]) -> dict[str, Any]:
    """Return figures as plain numbers, null where unknown, with intervals and sources beside."""
    known = {name: figures[name] for name in _SHOWN if name in figures}
    return {
        **{name: figures[name].value if name in figures else None for name in _SHOWN},
        "interval": {name: [f.low, f.high] for name, f in known.items() if f.low is not None},
        "standing": {name: f.standing for name, f in known.items()},
        "source": {name: f.source for name, f in known.items()},
    }
