"""The command line: ``edgesdk --help`` teaches it."""

from __future__ import annotations

import sys

from edgesdk.cli import compile, devices, doctor, inspect, verify  # noqa: F401 - commands
from edgesdk.cli.app import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))
