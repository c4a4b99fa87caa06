"""The command line: ``edgesdk --help`` teaches it."""

from __future__ import annotations

import sys

from edgesdk.cli import (  # noqa: F401 - commands
    compile,
    devices,
    devices_calibrate,
    devices_check,
    devices_fit,
    devices_new,
    devices_show,
    doctor,
    inspect,
    integrate,
    measurements,
    profile,
    report,
    verify,
)
from edgesdk.cli.app import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))
