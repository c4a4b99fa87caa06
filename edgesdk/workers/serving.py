"""The worker process: answers items of jobs until whoever started it has gone.

Started by ``edgesdk.workers.processes``; speaks ``edgesdk.running.wire`` over the original
standard output, and sends whatever a task prints to standard error instead.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np

from edgesdk.running.wire import read_message, write_message
from edgesdk.workers.answering import Answerer

_LOOK_S = 1.0


def main() -> None:
    """Answer until standard input closes."""
    # Ctrl-C reaches every process of the terminal; the one that started us decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    answerer = Answerer()
    job: tuple[str, str, bytes, int] | None = None
    while True:
        try:
            header, arrays = read_message(requests)
        except EOFError:
            return
        if header["request"] == "open a job":
            job = (header["kind"], header["digest"], arrays[0].tobytes(), header["threads"])
            write_message(replies, {})
            continue
        assert job is not None
        told, answer = answerer.answer(*job, arrays[0].tobytes())
        write_message(replies, {"reply": told}, [np.frombuffer(answer, np.uint8)])


def _leave_with(parent: int) -> None:
    """End this process once its parent was killed, which it is not told of in mid-work."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    main()
