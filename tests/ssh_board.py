"""A board for tests: a real OpenSSH server on loopback, with keys and a port of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STARTED_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Board:
    """A server: where it listens, the configuration to reach it, and the folder it works in."""

    place: str
    config: Path
    scratch: Path
    server: subprocess.Popen[bytes]

    def left_behind(self) -> list[Path]:
        """Return what lies in the board's temporary folder, after a while for its cleaning up."""
        deadline = time.monotonic() + STARTED_S
        while time.monotonic() < deadline and list(self.scratch.iterdir()):
            time.sleep(0.1)
        return list(self.scratch.iterdir())


def _program(name: str) -> str:
    return shutil.which(name) or f"/usr/sbin/{name}"


@contextmanager
def serve_board(home: Path) -> Iterator[Board]:
    """Yield a server that works in a folder, and end it."""
    scratch = home / "tmp"
    scratch.mkdir(parents=True)
    for name in ("host_key", "user_key"):
        subprocess.run(
            [_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)],
            check=True,
        )
    shutil.copy(home / "user_key.pub", home / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (home / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host_key\nUsePAM no\n"
        f"AuthorizedKeysFile {home}/authorized_keys\nPidFile none\nStrictModes no\n"
        f"PasswordAuthentication no\nSetEnv TMPDIR={scratch}\n"
    )
    (home / "ssh_config").write_text(
        f"IdentityFile {home}/user_key\nUserKnownHostsFile {home}/known_hosts\n"
        "StrictHostKeyChecking accept-new\nIdentitiesOnly yes\nBatchMode yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd locks itself in
    server = subprocess.Popen(
        [_program("sshd"), "-D", "-e", "-f", str(home / "sshd_config")], stderr=subprocess.DEVNULL
    )
    _await_port(port)
    try:
        yield Board(
            place=f"{getpass.getuser()}@127.0.0.1:{port}",
            config=home / "ssh_config",
            scratch=scratch,
            server=server,
        )
    finally:
        server.kill()
        server.wait()


def _await_port(port: int) -> None:
    deadline = time.monotonic() + STARTED_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
