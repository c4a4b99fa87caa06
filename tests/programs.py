"""System programs that some tests need: skipped where one is missing, unless CI asks for it."""

import os
import shutil

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where ``program`` is not installed.

    With ``EDGESDK_REQUIRE_PROGRAMS`` set nothing is skipped: a test that needs the program fails.
    """
    is_missing = shutil.which(program) is None and not os.environ.get("EDGESDK_REQUIRE_PROGRAMS")
    return pytest.mark.skipif(is_missing, reason=f"{program} is not installed")
