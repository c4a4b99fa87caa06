"""``ssh:USER@HOST[:PORT]``: any Linux board, measured by the agent over one OpenSSH connection.

Artifact and agent travel through the connection's standard input into a fresh folder, the answer
comes back on its standard output. The folder is removed by a trap of the shell on the board, so it
goes also when the connection is cut: the agent ends as soon as its standard input closes.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from edgesdk.artifact import MANIFEST, files_under
from edgesdk.errors import MeasurementError, UsageError
from edgesdk.measurement import Measurement
from edgesdk.measurement_file import LIMIT_BYTES, parse_measurement
from edgesdk.profiling.agent_file import NAME, agent_bytes
from edgesdk.profiling.agent_run import agent_arguments, explain, follow, program_name
from edgesdk.profiling.job import Job

_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:]+\]"
_PLACE = re.compile(rf"(?:({_USER})@)?({_HOST})(?::(\d{{1,5}}))?")

# Of the artifacts on the board, and of the second one's measurement.
_FOLDERS, _BESIDE = ("artifact", "beside"), "beside.json"
_MARK = "--- measurement ---"
_NO_FOLDER, _NOT_UNPACKED, _NO_PYTHON, _SSH_FAILED = 20, 21, 22, 255

# "$1" is the archive's size, "$2" the interpreter, the rest the agent's options. head takes exactly
# the archive, so that what is left of standard input stays open as long as the connection.
_SCRIPT = f"""
folder=$(mktemp -d "${{TMPDIR:-/tmp}}/edgesdk.XXXXXXXX") || exit {_NO_FOLDER}
trap 'rm -rf "$folder"' EXIT
trap 'exit 129' HUP INT TERM PIPE
cd "$folder" || exit {_NO_FOLDER}
head -c "$1" | tar xf - || exit {_NOT_UNPACKED}
python=$2
shift 2
command -v "$python" >/dev/null || exit {_NO_PYTHON}
"$python" {NAME} {_FOLDERS[0]} -o measurement.json --stop-at-eof "$@" || exit $?
echo '{_MARK}'
cat measurement.json
[ ! -f {_BESIDE} ] || {{ echo '{_MARK}'; cat {_BESIDE}; }}
"""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where to connect to; ``None`` leaves the user or port to ssh's own configuration."""

    user: str | None
    host: str
    port: int | None


def parse_address(place: str) -> Address:
    """Return the address in ``USER@HOST[:PORT]``; ``UsageError`` for anything else.

    Only the characters of names and numbers are taken, and nothing that begins with a dash: ssh
    would read it as an option.
    """
    found = _PLACE.fullmatch(place)
    if not found or (found[3] and not 0 < int(found[3]) < 65536):
        raise UsageError(
            f"ssh cannot connect to {place!r}",
            expected="ssh:USER@HOST or ssh:USER@HOST:PORT, names of letters, digits, . _ and -",
        )
    return Address(
        user=found[1], host=found[2].strip("[]"), port=int(found[3]) if found[3] else None
    )


def measure(place: str, job: Job) -> Measurement:
    """Return what the agent measured on the board; nothing of it stays there."""
    return measure_in_turns(place, [job])[0]


def measure_in_turns(place: str, jobs: Sequence[Job]) -> list[Measurement]:
    """Return what the agent measured of one artifact, or of two in the same rounds."""
    address, job = parse_address(place), jobs[0]
    archive = pack(jobs)
    device = job.device or job.manifest.device
    options = agent_arguments(job, device=device, measured_by=program_name("ssh"))
    options += ["--beside", _FOLDERS[1], _BESIDE] if len(jobs) > 1 else []
    remote = [
        "sh",
        "-c",
        _SCRIPT,
        "edgesdk",
        str(len(archive)),
        job.bench.python or "python3",
        *options,
    ]
    words = [*_ssh_words(address, job), shlex.join(remote)]
    job.progress.step(f"Connecting to {place}")
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - a list of words, no shell here
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        except FileNotFoundError:
            raise MeasurementError(
                "ssh is not installed here", next_step="install OpenSSH's client"
            ) from None
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            # The board reads while it answers, so writing must not wait for reading.
            feeding = threading.Thread(target=_feed, args=(process.stdin, archive), daemon=True)
            feeding.start()
            try:
                answer = _follow(process.stdout, job)
                _close(process.stdin)
                code = process.wait()
            except BaseException:
                process.kill()
                raise
        if code or answer is None:
            errors.seek(0)
            raise _explain(code, errors.read().decode(errors="replace"), place)
    return _read_answer(answer, len(jobs), place)


def _read_answer(answer: bytes, count: int, place: str) -> list[Measurement]:
    """Return the measurements that the mark divides; JSON has no line that is one."""
    parts = answer.split(f"\n{_MARK}\n".encode())
    if len(parts) != count:
        raise MeasurementError(f"{place} sent {len(parts)} measurements", expected=f"{count}")
    return [parse_measurement(part, what=f"the measurement from {place}") for part in parts]


def pack(jobs: Sequence[Job]) -> bytes:
    """Return a tar archive of the agent and of exactly the files that the manifests name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        agent = agent_bytes()
        about = _plain(tarfile.TarInfo(NAME))
        about.size = len(agent)
        archive.addfile(about, io.BytesIO(agent))
        for folder, job in zip(_FOLDERS, jobs, strict=False):
            for name in (MANIFEST, *sorted(job.manifest.sha256)):
                for file in files_under(job.folder / name):
                    relative = file.relative_to(job.folder).as_posix()
                    archive.add(file, arcname=f"{folder}/{relative}", filter=_plain)
    return buffer.getvalue()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return the member without what only means something here: owner, times and modes."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _ssh_words(address: Address, job: Job) -> list[str]:
    words = ["ssh", "-T", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10"]
    words += ["-o", "ServerAliveCountMax=3", "-o", "LogLevel=ERROR"]
    words += ["-F", str(job.bench.ssh_config)] if job.bench.ssh_config else []
    words += ["-p", str(address.port)] if address.port else []
    words += ["-l", address.user] if address.user else []
    return [*words, "--", address.host]


def _feed(stream: IO[bytes], archive: bytes) -> None:
    """Send the archive and leave the stream open: the agent ends when it closes."""
    try:
        stream.write(archive)
        stream.flush()
    except (BrokenPipeError, ValueError):
        return  # the other side has gone; its exit code says why


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return


def _follow(stream: IO[bytes], job: Job) -> bytes | None:
    """Return the bytes behind the first mark, None where the stream ends before it."""
    for line in iter(lambda: stream.readline(10_000), b""):
        text = line.decode(errors="replace").rstrip()
        if text == _MARK:
            return stream.read(len(_FOLDERS) * LIMIT_BYTES + 1)
        follow(text, job.progress)
    return None


def _explain(code: int, errors: str, place: str) -> MeasurementError:
    last = (errors.strip().splitlines() or [""])[-1][:500]
    if code in (_NO_FOLDER, _NOT_UNPACKED):
        return MeasurementError(
            f"{place} cannot hold the artifact: {last}",
            next_step="free some space there, or set TMPDIR for that user",
        )
    if code == _NO_PYTHON:
        return MeasurementError(
            f"{place} has no such Python", next_step="name it with --python, as venv/bin/python"
        )
    if code == _SSH_FAILED or not code:
        return MeasurementError(
            f"the connection to {place} failed or was cut: {last or 'ssh said nothing'}",
            next_step="check it with ssh, then run the same command again; nothing was left behind",
        )
    return explain(code, errors, where=place)
