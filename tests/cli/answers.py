"""What the tests of the command line ask with and read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Asking = Callable[..., tuple[int, str]]


def answered(outcome: tuple[int, str]) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the one JSON object that was printed."""
    code, text = outcome
    assert text.endswith("\n")
    assert text.count("\n") == 1
    data = json.loads(text)
    assert isinstance(data, dict)
    assert data["status"] in ("ok", "infeasible", "error")
    return code, data
