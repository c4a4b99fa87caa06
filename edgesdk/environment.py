"""A virtual environment of its own for packages that cannot be installed beside edgesdk's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import TargetUnavailable

_COMPLETE = "complete"
_INSTALL_TIMEOUT_S = 900.0


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Which packages it holds, for which Pythons there are wheels of them, and what else to do.

    ``pythons`` are the (major, minor) versions, the best first; ``otherwise`` is the next step of
    somebody who cannot have it made here.
    """

    name: str
    version: str
    requirements: tuple[str, ...]
    pythons: tuple[tuple[int, int], ...]
    otherwise: str

    def prepare(self, cache: Path) -> Path:
        """Return the environment's Python; the environment is made under ``cache`` if need be.

        It appears in one rename, so an interrupted run leaves nothing that looks whole, and two
        runs at once do not meet. Raises ``TargetUnavailable`` where no fitting Python is here or
        the packages cannot be had.
        """
        home = self._home(cache)
        if not self.is_made(cache):
            base = self._find_python()
            home.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home.parent, prefix=".making-") as temporary:
                made = Path(temporary) / home.name
                self._install([base, "-m", "venv", str(made)])
                self._install([str(_python(made)), "-m", "pip", "install", "--quiet",
                               "--only-binary=:all:", "--disable-pip-version-check",
                               *self.requirements])  # fmt: skip
                (made / _COMPLETE).touch()
                self._publish(made, home)
        return _python(home)

    def is_made(self, cache: Path) -> bool:
        """Return whether it is there, whole."""
        return (self._home(cache) / _COMPLETE).exists()

    def _home(self, cache: Path) -> Path:
        return cache / "runtimes" / f"{self.name}-{self.version}"

    def _publish(self, made: Path, home: Path) -> None:
        try:
            made.rename(home)
        except OSError:
            if not (home / _COMPLETE).exists():  # not another run's, which is as good
                raise

    def _find_python(self) -> str:
        """Return a Python that there is a wheel for: this one, else one on the path."""
        if sys.version_info[:2] in self.pythons:
            return sys.executable
        names = [f"python{major}.{minor}" for major, minor in self.pythons]
        found = next((path for name in names if (path := shutil.which(name))), None)
        if found is None:
            raise TargetUnavailable(
                f"{self.name} {self.version} has no wheel for Python {sys.version_info[0]}."
                f"{sys.version_info[1]}",
                expected=f"one of {', '.join(names)} on the path",
                next_step=f"install one of them, or {self.otherwise}",
            )
        return found

    def _install(self, words: Sequence[str]) -> None:
        try:
            done = subprocess.run(  # noqa: S603 - a list of words, no shell
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_INSTALL_TIMEOUT_S,
                check=False,
            )  # fmt: skip
            problem = done.stderr.decode(errors="replace").strip() if done.returncode else None
        except subprocess.TimeoutExpired:
            problem = f"it did not end within {_INSTALL_TIMEOUT_S:g} s"
        if problem is not None:
            last = (problem.splitlines() or ["no word"])[-1]
            raise TargetUnavailable(
                f"the environment for {self.name} {self.version} cannot be made: {last}",
                expected=f"a package index that has {' and '.join(self.requirements)}",
                next_step=self.otherwise,
            )


def _python(folder: Path) -> Path:
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"
