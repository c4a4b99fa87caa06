"""Run a sealed artifact on an older runtime, and seal what came of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgesdk.artifact import (
    LAYERS,
    MANIFEST,
    MANIFEST_SHA256,
    PLAN,
    REPORT,
    FieldRun,
    Manifest,
    manifest_seal,
    read_manifest,
    sha256_of,
)
from edgesdk.document import read_json, to_json
from edgesdk.layer_change import LayerChanges
from edgesdk.plan import Plan
from edgesdk.report.describe import describe_artifact
from edgesdk.report.text import render_text
from edgesdk.verification import Verification, verify_in_field


def seal_field_run(folder: Path, name: str, python: Path) -> Manifest:
    """Return the manifest with a run on that runtime, manifest and report written again.

    ``python`` is that of the environment that has it.

    A file that does not run there is no error: it is what the manifest then says.
    """
    result = verify_in_field(folder, name, python)
    manifest = read_manifest(folder)
    manifest = replace(manifest, field_runs=(*manifest.field_runs, _told(result, name)))
    plan, layers = read_json(Plan, folder / PLAN), read_json(LayerChanges, folder / LAYERS)
    data = describe_artifact(folder, manifest, plan, layers, label="OUT")
    (folder / REPORT).write_text(render_text(data), encoding="utf-8")
    hashes = {**manifest.sha256, REPORT: sha256_of(folder / REPORT)}
    manifest = replace(manifest, sha256=hashes)
    (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder), encoding="utf-8")
    return manifest


def _told(result: Verification, name: str) -> FieldRun:
    last = result.checks[-1]
    return FieldRun(
        runtime=result.runtime or name,
        runs=result.status == "verified",
        detail=f"{last.name}: {last.detail}",
    )
