from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def jobs_are_found() -> Iterator[None]:
    """Worker processes import the test's jobs by their module's name."""
    here = str(Path(__file__).parent)
    known = os.environ.get("PYTHONPATH")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (here, known))))
        yield
