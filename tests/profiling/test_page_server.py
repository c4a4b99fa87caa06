"""The server of the browser's page: what it serves, and what it takes from whom."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from measuring import EXAMPLE
from profiled import MODEL, job_of, make_artifact

from edgesdk.artifact import sha256_of
from edgesdk.document import to_json
from edgesdk.errors import MeasurementError
from edgesdk.measurement import Measurement, Slice
from edgesdk.measurement_file import LIMIT_BYTES
from edgesdk.profiling.page_server import Advance, PageServer
from edgesdk.profiling.profile import check_belongs

SHORT_S = 5.0


@pytest.fixture
def measured(tmp_path: Path) -> Measurement:
    """A browser's measurement of the artifact in ``out``."""
    folder = make_artifact(tmp_path / "out")
    identity = replace(EXAMPLE.identity, runtime="litert.js", version="2.5.3", platform="wasm")
    digest = sha256_of(folder / MODEL)
    return replace(EXAMPLE, artifact_sha256=digest, device="browser", identity=identity)


@pytest.fixture
def server(tmp_path: Path, measured: Measurement) -> Iterator[PageServer]:
    job = job_of(tmp_path / "out")
    page = tmp_path / "dist"
    (page / "wasm").mkdir(parents=True)
    (page / "index.html").write_text("<p>the page</p>")
    (page / "wasm/runtime.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text("secret")
    os.symlink(tmp_path / "secret.txt", page / "link.txt")
    with PageServer(page, lambda it: check_belongs(it, job.manifest, job.folder)) as running:
        yield running


def asked(
    server: PageServer, method: str, name: str, body: bytes = b"", *, token: str | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Return status, headers and body of one request, its path sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=SHORT_S)
    try:
        connection.request(method, f"/{server.token if token is None else token}/{name}", body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def posted(server: PageServer, measurement: Measurement) -> tuple[int, str]:
    status, _, body = asked(server, "POST", "measurement", to_json(measurement).encode())
    return status, body.decode()


def waited(server: PageServer) -> Measurement:
    return server.wait(SHORT_S, lambda _: None)


def test_the_page_and_its_files_are_served_isolated_and_with_their_types(
    server: PageServer,
) -> None:
    status, headers, body = asked(server, "GET", "")
    assert (status, body) == (200, b"<p>the page</p>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    status, headers, _ = asked(server, "GET", "wasm/runtime.wasm")
    assert (status, headers["Content-Type"]) == (200, "application/wasm")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "wasm/../../secret.txt",
        "link.txt", "wasm", "wasm/", "/etc/passwd", "nothing.html", "index.html/",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server: PageServer, name: str) -> None:
    status, _, body = asked(server, "GET", name)
    assert status == HTTPStatus.NOT_FOUND
    assert b"secret" not in body


@pytest.mark.parametrize("token", ["", "x", "wrong" * 8, "%00", "..", "%C3%A9"])
def test_another_token_finds_nothing(server: PageServer, measured: Measurement, token: str) -> None:
    content = to_json(measured).encode()
    for method, name, body in (("GET", "", b""), ("POST", "measurement", content)):
        try:
            status, _, _ = asked(server, method, name, body, token=token)
        except (ConnectionResetError, BrokenPipeError):  # answered before the body was read
            continue
        assert status == HTTPStatus.NOT_FOUND
    assert posted(server, measured)[0] == HTTPStatus.OK


def test_two_servers_have_different_tokens(server: PageServer, tmp_path: Path) -> None:
    with PageServer(tmp_path / "dist", lambda _: None) as other:
        assert other.token != server.token
    assert urlsplit(server.address()).hostname == "127.0.0.1"


def test_a_measurement_is_taken_once(server: PageServer, measured: Measurement) -> None:
    assert posted(server, measured) == (HTTPStatus.OK, "taken")
    assert posted(server, replace(measured, p50_ms=1.9))[0] == HTTPStatus.CONFLICT
    assert waited(server) == measured


def test_a_refused_measurement_says_why_and_leaves_room_for_a_right_one(
    server: PageServer, measured: Measurement
) -> None:
    other = replace(measured, artifact_sha256="0" * 64)
    status, text = posted(server, other)
    assert status == HTTPStatus.BAD_REQUEST
    assert "SHA-256 000000000000" in text
    assert posted(server, measured)[0] == HTTPStatus.OK


def documents(measured: Measurement) -> dict[str, tuple[bytes, str]]:
    """Return uploads that are no measurement, by what is wrong, with words of the answer."""
    whole = to_json(measured).encode()
    data = json.loads(whole)
    slices = [Slice(start_s=start, median_ms=2.0, runs=9) for start in (0.0, 2.0, 1.0)]
    backwards = {**data, "sustained": [vars(piece) for piece in slices]}
    return {
        "truncated": (whole[: len(whole) // 2], "cannot be read as JSON"),
        "empty": (b"", "cannot be read as JSON"),
        "forged": (json.dumps({**data, "p50_ms": -1.0}).encode(), "p50_ms"),
        "not a number": (whole.replace(b'"p50_ms": 2.0', b'"p50_ms": NaN'), "NaN"),
        "more than asked": (json.dumps({**data, "command": "rm"}).encode(), "command"),
        "clock backwards": (json.dumps(backwards).encode(), "clock went backwards"),
        "another runtime": (
            to_json(replace(measured, identity=EXAMPLE.identity)).replace(
                f'"{EXAMPLE.identity.runtime}"', '"tensorrt"'
            ).encode(),
            "tensorrt",
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    "what",
    [
        "truncated", "empty", "forged", "not a number", "more than asked", "clock backwards",
        "another runtime",
    ],
)  # fmt: skip
def test_what_is_no_measurement_is_refused(
    server: PageServer, measured: Measurement, what: str
) -> None:
    content, words = documents(measured)[what]
    status, _, body = asked(server, "POST", "measurement", content)
    assert (status, words in body.decode()) == (HTTPStatus.BAD_REQUEST, True), body
    assert not server.is_taken


@pytest.mark.parametrize(
    ("name", "length", "status"),
    [
        ("measurement", str(LIMIT_BYTES + 1), HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ("measurement", "9" * 12, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ("progress", "100000", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ("measurement", "-1", HTTPStatus.LENGTH_REQUIRED),
        ("measurement", "9" * 5000, HTTPStatus.LENGTH_REQUIRED),
        ("measurement", "many", HTTPStatus.LENGTH_REQUIRED),
    ],
)
def test_a_body_of_wrong_size_is_not_read(
    server: PageServer, name: str, length: str, status: HTTPStatus
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=SHORT_S)
    connection.putrequest("POST", f"/{server.token}/{name}")
    connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == status
    connection.close()


def test_an_upload_that_is_cut_does_not_count(server: PageServer, measured: Measurement) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=SHORT_S)
    connection.putrequest("POST", f"/{server.token}/measurement")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"{")
    connection.close()
    assert posted(server, measured)[0] == HTTPStatus.OK


def test_progress_reaches_whoever_waits(server: PageServer, measured: Measurement) -> None:
    for body, status in (
        (b'{"done": 1.5, "total": 3, "median_ms": 0.2}', HTTPStatus.OK),
        (b'{"done": -1, "total": 3, "median_ms": 0.2}', HTTPStatus.BAD_REQUEST),
        (b'{"done": 1, "total": 0, "median_ms": 0.2}', HTTPStatus.BAD_REQUEST),
        (b'{"done": "[red]", "total": 3, "median_ms": 0.2}', HTTPStatus.BAD_REQUEST),
        (b"[" * 2000, HTTPStatus.BAD_REQUEST),
    ):
        assert asked(server, "POST", "progress", body)[0] == status
    posted(server, measured)
    seen: list[Advance] = []
    assert server.wait(SHORT_S, seen.append) == measured
    assert seen == [Advance(done=1.5, total=3.0, median_ms=0.2)]


def test_a_page_that_fails_is_heard_without_its_control_characters(server: PageServer) -> None:
    body = json.dumps({"message": "no WebGPU \x1b[31m" + "x" * 2000}).encode()
    assert asked(server, "POST", "failure", body)[0] == HTTPStatus.OK
    with pytest.raises(MeasurementError, match=r"no WebGPU  \[31mx+\.") as failure:
        waited(server)
    assert len(str(failure.value)) < 600


def test_nobody_is_waited_for_for_ever(server: PageServer) -> None:
    with pytest.raises(MeasurementError, match="no page sent a measurement"):
        server.wait(0.01, lambda _: None)


@pytest.mark.parametrize("name", ["", "index.html", "measurements", "../measurement"])
def test_nothing_is_taken_elsewhere(server: PageServer, name: str) -> None:
    assert asked(server, "POST", name, b"{}")[0] == HTTPStatus.NOT_FOUND
