"""The worker process: loads artifacts on their runtime and runs them, so a crash stays here.

Started by ``edgesdk.running.process``; speaks ``edgesdk.running.wire`` over the original standard
output, and sends whatever libraries print there to standard error instead.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgesdk import errors
from edgesdk.document import from_builtins, to_builtins
from edgesdk.running.wire import error_message, read_message, write_message
from edgesdk.target import Arrays, Emission, Session, find_target


def main() -> None:
    """Answer requests until standard input closes."""
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    sessions: dict[int, Session] = {}
    while True:
        try:
            header, arrays = read_message(requests)
        except EOFError:
            return
        try:
            slot = header.get("slot", 0)
            session = sessions.get(slot)
            if header["request"] == "open":
                sessions[slot] = _open(replies, header)
            elif session is None:
                raise errors.ArtifactError("no artifact is open")
            elif header["request"] == "run":
                write_message(replies, {}, _run(session, arrays))
            else:
                write_message(replies, _time(session, header, arrays))
        except errors.EdgeSDKError as problem:
            write_message(replies, error_message(problem))
        except Exception as problem:  # noqa: BLE001 - whatever a runtime raises is about the file
            text = f"the runtime could not {header['request']} the artifact: {problem!r}"
            write_message(replies, error_message(errors.ArtifactError(text)))


def _open(replies: IO[bytes], header: dict[str, Any]) -> Session:
    emission = from_builtins(Emission, header["emission"], what="emission")
    target = find_target(header["target"])
    folder, threads = Path(header["folder"]), header["threads"]
    # The first load also imports the toolchain, which an app does not do, so the second counts.
    target.open(folder, emission, header["host_runtime"], threads)
    start = time.perf_counter_ns()
    session = target.open(folder, emission, header["host_runtime"], threads)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    identity = to_builtins(session.identity)
    reply = {"identity": identity, "load_ms": load_ms, "memory_bytes": session.memory_bytes()}
    write_message(replies, reply)
    return session


def _run(session: Session, stacked: Arrays) -> Arrays:
    """Run each ``[B, ...]`` batch of the stacked ``[M, B, ...]`` inputs and stack the outputs."""
    batches = zip(*stacked, strict=True)
    results = [session.run(list(batch)) for batch in batches]
    return [np.stack(outputs) for outputs in zip(*results, strict=True)]


def _time(session: Session, header: dict[str, Any], inputs: Arrays) -> dict[str, Any]:
    samples = []
    infer = session.bind(inputs)
    for _ in range(header["runs"]):
        start = time.perf_counter_ns()
        infer()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return {"samples_ms": samples}


if __name__ == "__main__":
    main()
