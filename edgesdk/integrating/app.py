"""An app: which artifacts it can hold, and the files that are written around one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.integrating.interface import Interface

AppName = str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What an app's folder is made of.

    ``templates`` maps a file of the app to its template, ``copies`` to a file or folder of the
    artifact, ``data`` to bytes; ``values`` is what the templates see. The keys are names that
    edgesdk chose: nothing from a manifest but identifiers is in them.
    """

    templates: Mapping[str, str]
    values: Mapping[str, Any]
    copies: Mapping[str, Path]
    data: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class App:
    """One kind of app.

    ``refuses`` returns why it cannot hold an artifact, None where it can. ``is_built`` says
    whether edgesdk's own tests build and run what it generates.
    """

    name: AppName
    summary: str
    is_built: bool
    refuses: Callable[[Interface], str | None]
    contents: Callable[[Interface], Contents]
