"""``integrate``: an artifact in, the code that runs it in an app out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import UsageError, unknown_name
from edgesdk.integrating import android, ios, linux, microcontroller, web
from edgesdk.integrating.app import App
from edgesdk.integrating.interface import Interface, read_interface
from edgesdk.integrating.rendering import render
from edgesdk.output import check_output, writing

APPS: Mapping[str, App] = {
    app.name: app for app in (android.APP, ios.APP, linux.APP, microcontroller.APP, web.APP)
}


@dataclass(frozen=True, kw_only=True)
class Integration:
    """What was written: the app's folder, its files, and whether edgesdk's tests build its like."""

    app: str
    artifact: Path
    folder: Path
    files: tuple[str, ...]
    is_built: bool

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "status": "ok",
            "app": self.app,
            "artifact": str(self.artifact),
            "folder": str(self.folder),
            "files": list(self.files),
            "built_by_our_tests": self.is_built,
        }


def integrate(folder: Path, app: str, out: Path) -> Integration:
    """Write an app's code around a finished artifact into a new folder.

    Equal artifacts give equal files. Raises ``UsageError`` for an unknown app and for one that
    cannot hold this artifact (naming those that can), ``ArtifactError`` for a damaged artifact,
    ``OutputError`` where the folder exists.
    """
    if app not in APPS:
        listing = f"known: {', '.join(APPS)}"
        raise UsageError(unknown_name("app", app, APPS, listing=listing))
    destination = check_output(out)
    interface = read_interface(folder)
    reason = APPS[app].refuses(interface)
    if reason is not None:
        raise _refusal(app, reason, interface)
    contents = APPS[app].contents(interface)
    with writing(destination) as staged:
        files = render(contents, staged)
    return Integration(
        app=app, artifact=folder, folder=destination, files=files, is_built=APPS[app].is_built
    )


def _refusal(app: str, reason: str, interface: Interface) -> UsageError:
    serving = [name for name, other in APPS.items() if other.refuses(interface) is None]
    return UsageError(
        f"an app for {app} cannot hold this artifact: {reason}",
        expected=f"--app {' or '.join(serving)}" if serving else None,
        next_step=None if serving else "compile the task for a device of that kind",
        details={"apps": serving},
    )
