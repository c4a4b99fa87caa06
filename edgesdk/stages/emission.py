"""Emit a compressed model into the cache, and find it there again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict

from edgesdk.artifact import Check, OpCount
from edgesdk.compressed import CompressedModel
from edgesdk.document import read_json, to_json
from edgesdk.errors import OutputError
from edgesdk.layer_format import check_layers
from edgesdk.stages.request import Request
from edgesdk.target import Emission
from edgesdk.trace import trace

_FILES = "files"
_READING = "reading.json"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What emitting wrote and what re-opening it told; kept with the files in the cache."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    emission: Emission
    operators: tuple[OpCount, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Emitted:
    """An emitted model: the folder with the runtime's files, and what reading them back told."""

    model: CompressedModel
    key: str
    folder: Path
    emission: Emission
    operators: tuple[OpCount, ...]
    checks: tuple[Check, ...]


def emit(request: Request, model: CompressedModel, key: str) -> Emitted:
    """Return the model in the target's format; ``key`` is the cache key of its float module."""
    schemes = (model.scheme, sorted(model.layer_schemes.items()))
    key = request.key_for("emit", key, repr(schemes), request.runtime, _versions(request))

    def build(folder: Path) -> None:
        request.progress.step(f"Emitting {model.scheme} for {request.target.name}")
        if model.layer_schemes:
            graph = trace(model.module, model.example_inputs, name=request.task.name)
            check_layers(graph, model.layer_schemes)
        files = folder / _FILES
        files.mkdir()
        emission = request.target.emit(model, request.runtime, files)
        written = (*emission.files, *emission.host_files, *emission.developer_files)
        missing = [name for name in written if not (files / name).exists()]
        if missing or not emission.files:
            raise OutputError(f"target {request.target.name!r} did not write {missing or 'a file'}")
        reading = Reading(
            emission=emission,
            operators=request.target.operators(files, emission),
            checks=request.target.checks(files, emission, model),
        )
        (folder / _READING).write_text(to_json(reading), encoding="utf-8")

    folder = request.cache.folder("emit", key, build)
    reading = read_json(Reading, folder / _READING)
    return Emitted(
        model=model,
        key=key,
        folder=folder / _FILES,
        emission=reading.emission,
        operators=reading.operators,
        checks=reading.checks,
    )


def _versions(request: Request) -> str:
    return repr(sorted(request.tool_versions.items()))
