"""Measure an artifact on the machine that it lies on and write the Measurement JSON."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .artifact import read_manifest, sha256_of
from .child import kill_all
from .job import Findings, Job
from .machine import hardware, power, throttled
from .problem import AgentError
from .runtimes import find_runtime
from .timing import say

_NOBODY_WAITS = 13


def measure(folders: Sequence[Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the Measurements of artifacts as JSON objects; several are timed in turns."""
    manifests = [read_manifest(folder) for folder in folders]
    if len({manifest["runtime"] for manifest in manifests}) > 1:
        raise AgentError("artifacts for different runtimes cannot be timed in turns")
    found = [find_runtime(manifest) for manifest in manifests]
    jobs = [
        Job(
            folder=folder,
            manifest=manifest,
            threads=options.threads or manifest["threads"],
            sustained_s=options.sustained,
            hooks=options.hooks,
        )
        for folder, manifest in zip(folders, manifests, strict=True)
    ]
    run, version = found[0]
    names = " and ".join(job.model.name for job in jobs)
    say(f"Loading {names} in {manifests[0]['runtime']} {version}")
    return [
        _document(job, told, version, options) for job, told in zip(jobs, run(jobs), strict=True)
    ]


def _document(
    job: Job, found: Findings, version: str, options: argparse.Namespace
) -> dict[str, Any]:
    manifest = job.manifest
    identity = {
        "runtime": manifest["runtime"],
        "version": version,
        "platform": f"{sys.platform}-{platform.machine()}",
        "unit": found.unit,
        "threads": found.threads,
    }
    return {
        "schema_version": 1,
        "artifact_sha256": sha256_of(job.model),
        "device": options.device or manifest["device"],
        "identity": identity,
        "batch_size": manifest["batch_size"],
        "measured_by": options.measured_by,
        "measured_at": _now(),
        **_machine(found),
        **_times(found),
        "notes": [*options.note, *found.notes],
    }


def _machine(found: Findings) -> dict[str, Any]:
    """Return the fields that say on what it ran and in which state that was."""
    return {
        "hardware": hardware(),
        "conditions": {
            "temperature_before_c": found.temperature_before_c,
            "temperature_after_c": found.temperature_after_c,
            "is_throttled": throttled(),
            **power(),
        },
        "peak_memory": found.peak_memory,
        "energy": found.energy,
        "self_test": found.self_test,
    }


def _times(found: Findings) -> dict[str, Any]:
    """Return the fields that say how long it took."""
    samples = found.samples_ms
    p50_ms, p90_ms, p99_ms = (float(np.percentile(samples, share)) for share in (50, 90, 99))
    return {
        "load_ms": found.load_ms,
        "first_ms": found.first_ms,
        "warmup_runs": found.warmup_runs,
        "runs": len(samples),
        "minimum_ms": min(samples),
        "p50_ms": p50_ms,
        "p90_ms": p90_ms,
        "p99_ms": p99_ms,
        "sustained": found.sustained,
        "per_op": found.per_op,
    }


def _now() -> str:
    utc = datetime.timezone.utc  # noqa: UP017 - boards have Python 3.10
    return datetime.datetime.now(utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _options(arguments: Iterable[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path, help="the artifact folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument(
        "--beside", type=Path, nargs=2, metavar=("ARTIFACT", "FILE"),
        help="another one to time in turns with it, and where its measurement goes",
    )  # fmt: skip
    parser.add_argument("--device", help="profile the numbers stand for; default: the artifact's")
    parser.add_argument("--threads", type=int, help="default: the artifact's")
    parser.add_argument("--sustained", type=float, default=0.0, help="seconds of a long run")
    parser.add_argument("--no-hooks", dest="hooks", action="store_false", help="no operator times")
    parser.add_argument("--measured-by", default="edgesdk agent", help="the program's name")
    parser.add_argument(
        "--stop-at-eof", action="store_true", help="end when standard input closes: nobody waits"
    )
    parser.add_argument("--note", action="append", default=[], help="a sentence to keep")
    return parser.parse_args(None if arguments is None else list(arguments))


def _stop_at_eof() -> None:
    """End this process when standard input closes, as it does when a connection is cut."""
    while os.read(0, 4096):
        pass
    kill_all()
    os._exit(_NOBODY_WAITS)


def _write(out: Path, document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    part = out.with_name(out.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(out)


def main(arguments: Iterable[str] | None = None) -> int:
    """Measure, write each file in one step, and return the exit code."""
    options = _options(arguments)
    if options.stop_at_eof:
        threading.Thread(target=_stop_at_eof, daemon=True).start()
    try:
        places = [(options.artifact, options.out), *([options.beside] if options.beside else [])]
        documents = measure([folder for folder, _ in places], options)
        for (_, out), document in zip(places, documents, strict=True):
            _write(out, document)
    except AgentError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 9
    except OSError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 9
    return 0
