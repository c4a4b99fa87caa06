"""A server for one page and one answer: files under a random token, and a measurement posted back.

Everything it is sent is untrusted: only the files that were there when it started are served, every
body has a limit, and an upload counts once, after it was read and accepted.
"""

from __future__ import annotations

import hmac
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field

from edgesdk.document import from_builtins, parse_json
from edgesdk.errors import MeasurementError
from edgesdk.measurement import Measurement
from edgesdk.measurement_file import LIMIT_BYTES, parse_measurement

# What a progress report and a failure may take.
_SHORT_BYTES = 4_000
# A phone that sleeps in the middle of a request must not hold a thread for ever.
_SLOWEST_REQUEST_S = 30
_MANY_EVENTS = 1_000

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_HEADERS = {
    # Isolated pages get a clock of microseconds, and the address holds the token: tell it nobody.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "img-src 'self' data: blob:",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, kw_only=True)
class Advance:
    """How far the page says that it is, and the latest median."""

    done: Annotated[float, Field(ge=0)]
    total: Annotated[float, Field(gt=0, le=1e6)]
    median_ms: Annotated[float, Field(ge=0, le=1e9)]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why the page could not measure, in its own words."""

    message: str


Event = Advance | Failure | Measurement


class _Refused(Exception):
    """A request that gets no more than a status and a sentence."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        self.status = status
        super().__init__(text)


class PageServer(ThreadingHTTPServer):
    """Serves a folder's files until a measurement that ``accept`` does not refuse was posted.

    ``accept`` raises ``MeasurementError`` for one that cannot count; the page is told why, and may
    post another.
    """

    daemon_threads = True

    def __init__(
        self, folder: Path, accept: Callable[[Measurement], None], *, host: str = "127.0.0.1"
    ) -> None:
        self.files = {
            path.relative_to(folder).as_posix(): path
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        self.accept = accept
        self.token = secrets.token_urlsafe(24)
        self.events: queue.Queue[Event] = queue.Queue(_MANY_EVENTS)
        self.taking = threading.Lock()
        self.is_taken = False
        super().__init__((host, 0), _Handler)

    def __enter__(self) -> PageServer:
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: a browser that goes away in the middle of a request is its own affair."""

    def address(self, host: str = "127.0.0.1") -> str:
        """Return the page's one-time address, for who reaches this machine as ``host``."""
        return f"http://{host}:{self.server_port}/{self.token}/"

    def wait(self, seconds: float, watch: Callable[[Advance], None]) -> Measurement:
        """Return the measurement; ``MeasurementError`` where the page failed, or none came in time.

        What the page reports meanwhile goes to ``watch``, in the caller's thread.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                event = self.events.get(timeout=min(left, 0.5))
            except queue.Empty:
                continue
            if isinstance(event, Measurement):
                return event
            if isinstance(event, Failure):
                raise MeasurementError(f"the page could not measure: {event.message}")
            watch(event)
        raise MeasurementError(
            f"no page sent a measurement within {seconds / 60:.0f} minutes",
            next_step="run the command again, open the address and keep the page in front",
        )


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = _SLOWEST_REQUEST_S
    server_version = "edgesdk"
    sys_version = ""

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal shows progress."""

    def do_GET(self) -> None:
        """Answer with a file of the page."""
        self._answer_with(self._file)

    def do_POST(self) -> None:
        """Take a measurement, a report of progress or a failure."""
        self._answer_with(self._take)

    def _answer_with(self, work: Callable[[str], tuple[bytes, str, Event | None]]) -> None:
        event = None
        try:
            body, kind, event = work(self._name())
            status = HTTPStatus.OK
        except _Refused as refusal:
            status, body, kind = refusal.status, str(refusal).encode(), "text/plain; charset=utf-8"
        try:
            self.send_response(status)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        finally:
            # Only after the answer, since whoever waits for the event may end the server; but also
            # where the page has gone and hears none.
            if event is not None:
                self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, Advance):
            if not self.server.events.full():
                self.server.events.put(event)
        else:
            self.server.events.put(event)

    def _name(self) -> str:
        """Return what follows the token in the path; 404 for another token."""
        token, slash, name = urlsplit(self.path).path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        return unquote(name)

    def _file(self, name: str) -> tuple[bytes, str, None]:
        path = self.server.files.get(name or "index.html")
        if path is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such file")
        kind = _TYPES.get(path.suffix, "application/octet-stream")
        return path.read_bytes(), kind, None

    def _take(self, name: str) -> tuple[bytes, str, Event]:
        takers: dict[str, Callable[[bytes], Event]] = {
            "measurement": self._measurement,
            "progress": self._advance,
            "failure": self._failure,
        }
        if name not in takers:
            raise _Refused(HTTPStatus.NOT_FOUND, "nothing is taken there")
        limit = LIMIT_BYTES if name == "measurement" else _SHORT_BYTES
        body = self._body(limit)
        try:
            event = takers[name](body)
        except MeasurementError as problem:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(problem)) from None
        return b"taken", "text/plain; charset=utf-8", event

    def _body(self, limit: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,12}", length):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "how many bytes follow?")
        if int(length) > limit:
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{length} bytes are more than {limit}"
            )
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _Refused(HTTPStatus.BAD_REQUEST, f"only {len(body)} of {length} bytes arrived")
        return body

    def _measurement(self, body: bytes) -> Measurement:
        measurement = parse_measurement(body, what="the measurement")
        with self.server.taking:
            if self.server.is_taken:
                raise _Refused(HTTPStatus.CONFLICT, "a measurement was taken already")
            self.server.accept(measurement)
            self.server.is_taken = True
        return measurement

    def _advance(self, body: bytes) -> Advance:
        data = parse_json(body, what="the progress", error=MeasurementError)
        return from_builtins(Advance, data, what="the progress", error=MeasurementError)

    def _failure(self, body: bytes) -> Failure:
        data = parse_json(body, what="the failure", error=MeasurementError)
        failure = from_builtins(Failure, data, what="the failure", error=MeasurementError)
        shown = "".join(c if c.isprintable() else " " for c in failure.message)
        return Failure(message=shown[:500])
