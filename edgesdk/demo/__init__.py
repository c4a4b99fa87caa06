"""Built-in tasks, named ``demo:NAME``: real data, a network trained on the spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgesdk.demo import digits
from edgesdk.task import Task

DEMOS: Mapping[str, Callable[[], Task]] = {"digits": digits.digits}


def demo_names() -> tuple[str, ...]:
    """Return the names of all built-in tasks, sorted."""
    return tuple(sorted(DEMOS))
