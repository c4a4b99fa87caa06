"""The page that measures in a browser: what ``integrate --app web`` writes, built by Vite."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
from pathlib import Path

from edgesdk.cache import Cache, default_root, key_of
from edgesdk.errors import TargetUnavailable
from edgesdk.integrating.generation import integrate
from edgesdk.progress import Progress

_OLDEST_NODE = 20
_MINUTES = 10
_PINS = ("package.json", "package-lock.json")
_PACKAGES = "node_modules"
# Nothing that a package brings is run while it is installed.
_INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
_UNREACHED = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT"
    r"|ERR_SOCKET_TIMEOUT|E40[13]|E50\d"
)


def build_page(artifact: Path, folder: Path, progress: Progress) -> Path:
    """Return the folder of the built page around an artifact, inside the empty ``folder``.

    The packages come from npm's registry once, with the hashes of the lock file, and stay in
    edgesdk's cache. Raises ``UsageError`` for an artifact that no browser runs, and
    ``TargetUnavailable`` without Node.js or a registry.
    """
    page = folder / "page"
    integrate(artifact, "web", page)
    npm = _find_npm()
    progress.step("Installing the page's packages")
    shutil.copytree(_installed(npm, page), page / _PACKAGES, symlinks=True)
    progress.step("Building the page")
    ended = _run(npm, "run", "build", folder=page)
    if ended.returncode:
        raise TargetUnavailable(
            f"the page cannot be built: {_last_line(ended)}",
            next_step="see it with 'edgesdk integrate --app web', npm ci and npm run build",
        )
    return page / "dist"


def _find_npm() -> str:
    npm, node = shutil.which("npm"), shutil.which("node")
    wanted = f"install Node.js {_OLDEST_NODE} or newer, which brings npm"
    if npm is None or node is None:
        missing = "npm" if npm is None else "node"
        raise TargetUnavailable(f"{missing} is not installed here", next_step=wanted)
    told = _run(node, "--version").stdout.strip()
    found = re.match(r"v(\d+)\.", told)
    if not found or int(found[1]) < _OLDEST_NODE:
        raise TargetUnavailable(f"node is {told or 'of no version'} here", next_step=wanted)
    return npm


def _installed(npm: str, page: Path) -> Path:
    """Return the folder of the packages that the page's lock file names, for this machine."""

    def build(folder: Path) -> None:
        for name in _PINS:
            shutil.copyfile(page / name, folder / name)
        ended = _run(npm, *_INSTALL, folder=folder)
        if ended.returncode == 0:
            return
        if code := _UNREACHED.search(ended.stderr):
            raise TargetUnavailable(
                f"npm cannot reach its registry: {code[0]}",
                next_step="connect this machine once, or set npm's registry or proxy; the "
                "packages are kept then",
            )
        raise TargetUnavailable(f"npm cannot install the page's packages: {_last_line(ended)}")

    pins = [(page / name).read_text(encoding="utf-8") for name in _PINS]
    key = key_of(*pins, platform.system(), platform.machine())
    return Cache(default_root()).folder("npm", key, build) / _PACKAGES


def _run(program: str, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Return how a program ended; what it started itself ends with it, whatever happens here."""
    with subprocess.Popen(  # noqa: S603 - npm and node, found on the path; no shell
        [program, *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            told = process.communicate(timeout=60 * _MINUTES)
        except subprocess.TimeoutExpired:
            raise TargetUnavailable(
                f"npm {words[0]} did not end within {_MINUTES} minutes",
                next_step="check the connection to npm's registry",
            ) from None
        finally:
            _end_group(process)
    return subprocess.CompletedProcess(process.args, process.returncode, *told)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a program and everything in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all have ended


def _last_line(ended: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in f"{ended.stdout}\n{ended.stderr}".splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()] or lines or ["it said nothing"]
    return told[0].strip()[:300]
