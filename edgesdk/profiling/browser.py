"""``browser[:wasm|webgpu]``: any browser that opens a page of ours, on this machine or a phone."""

from __future__ import annotations

import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

from edgesdk.errors import MeasurementError, UsageError
from edgesdk.measurement import Measurement
from edgesdk.profiling.agent_run import program_name
from edgesdk.profiling.job import Job
from edgesdk.profiling.page import build_page
from edgesdk.profiling.page_server import Advance, PageServer
from edgesdk.profiling.profile import check_belongs

# What the numbers stand for: no profile, as a browser is not the runtime that one describes.
DEVICE = "browser"
_ACCELERATORS = ("wasm", "webgpu")
_LONGEST_WAIT_S = 15 * 60
# Never asked: any address beyond this machine shows which of its own leads out.
_ELSEWHERE = ("192.0.2.1", 9)


def measure(place: str, job: Job) -> Measurement:
    """Return what a browser measured that opened the page before a quarter of an hour was over.

    The numbers stand for ``browser``, or for the job's device, on LiteRT.js.
    """
    accelerator = place or _ACCELERATORS[0]
    if accelerator not in _ACCELERATORS:
        raise UsageError(
            f"a browser runs nothing on {accelerator!r}", expected="browser:wasm or browser:webgpu"
        )
    if job.threads not in (None, 1):
        raise UsageError(
            f"the page computes on one thread, not on {job.threads}",
            expected="--threads 1, or none",
        )
    device = job.device or DEVICE
    host = _lan_address() if job.bench.lan else "127.0.0.1"

    def accept(measurement: Measurement) -> None:
        check_belongs(measurement, job.manifest, job.folder)
        told = (measurement.device, measurement.identity.runtime, measurement.identity.platform)
        if told != (asked := (device, "litert.js", accelerator)):
            raise MeasurementError(
                f"the measurement is of {', '.join(told)}", expected=", ".join(asked)
            )

    with tempfile.TemporaryDirectory(prefix="edgesdk.") as folder:
        page = build_page(job.folder, Path(folder), job.progress)
        with PageServer(page, accept, host="0.0.0.0" if job.bench.lan else host) as server:  # noqa: S104 - only where --lan asks for it
            order = {"bench": accelerator, "sustained": f"{job.sustained_s:g}", "device": device}
            address = f"{server.address(host)}#{urlencode(order)}&send"
            job.progress.step("Waiting for a browser to open the page")
            job.progress.show_address(address, is_for_phones=job.bench.lan)
            measured = server.wait(_LONGEST_WAIT_S + job.sustained_s, lambda at: _show(at, job))
    notes = ("per_op: LiteRT.js gives no times of operators",) if job.hooks else ()
    return replace(measured, measured_by=program_name("browser"), notes=(*measured.notes, *notes))


def _show(at: Advance, job: Job) -> None:
    """Show how far the page is, in permille: the bar counts in whole steps."""
    done = min(round(1000 * at.done / at.total), 1000)
    job.progress.advance(done, 1000, f"{at.median_ms:.3f} ms")


def _lan_address() -> str:
    """Return the address under which this machine's network knows it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        try:
            out.connect(_ELSEWHERE)  # of a datagram socket: nothing is sent
        except OSError as problem:
            raise MeasurementError(
                f"this machine is on no network: {problem.strerror}",
                next_step="connect it, or leave out --lan and use a browser here",
            ) from None
        return str(out.getsockname()[0])
