"""``edgesdk profile`` and ``edgesdk measurements``: what they print, keep and write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from answers import Asking, answered
from measuring import EXAMPLE
from profiled import MODEL, make_artifact

from edgesdk.artifact import sha256_of
from edgesdk.document import to_json
from edgesdk.measurement import SelfTest
from edgesdk.measurement_file import read_measurement
from edgesdk.profiling.store import default_store


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact, and beside it a measurement of it; the store is empty."""
    monkeypatch.setenv("EDGESDK_STORE", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    folder = make_artifact(tmp_path / "out", device="raspberry_pi_5", threads=4)
    measurement = replace(EXAMPLE, artifact_sha256=sha256_of(folder / MODEL))
    (tmp_path / "m.json").write_text(to_json(measurement), encoding="utf-8")
    return folder


def test_a_profile_is_shown_kept_and_written(
    artifact: Path, tmp_path: Path, asking: Asking
) -> None:
    before = sha256_of(artifact)
    words = ("profile", str(artifact), "--on", "import:m.json")
    code, shown = asking(*words, "-o", "copy.json", "--trace", "trace.json")
    assert code == 0
    for text in (
        "raspberry_pi_5", "2.000 ms", "predicted 0.600 ms", "stem.conv", "1.2000 ms",
        "15 % longer", "self-test: passed", "note: a note", "██ 2.000 ms at first", "measurement 1",
    ):  # fmt: skip
        assert text in shown, text
    assert read_measurement(tmp_path / "copy.json") == read_measurement(tmp_path / "m.json")
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sha256_of(artifact) == before
    code, data = answered(asking(*words, "--json"))
    assert (code, data["number"], len(default_store().all())) == (0, 1, 1)
    assert data["measurement"]["p50_ms"] == 2.0
    assert data["predicted"]["value"] == 0.6


def test_a_failed_self_test_is_exit_code_4(artifact: Path, tmp_path: Path, asking: Asking) -> None:
    failed = SelfTest(status="failed", samples=4, sqnr_db=6.0)
    wrong = replace(read_measurement(tmp_path / "m.json"), self_test=failed)
    (tmp_path / "m.json").write_text(to_json(wrong), encoding="utf-8")
    code, data = answered(asking("profile", str(artifact), "--on", "import:m.json", "--json"))
    assert (code, data["status"]) == (4, "error")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--on", "ssh:-oProxyCommand=x"), 2, "ssh cannot connect"),
        (("--on", "lokal"), 2, "did you mean 'local'"),
        (("--on", "import:none.json"), 9, "cannot be read"),
        (("--on", "import:m.json", "--sustained", "forever"), 2, "--sustained cannot be"),
        (("--on", "import:m.json", "-o", "m.json"), 11, "exists already"),
        (("--on", "adb"), 2, "needs the benchmark program"),
    ],
)
def test_a_mistake_is_explained(
    artifact: Path, asking: Asking, words: tuple[str, ...], code: int, said: str
) -> None:
    found, data = answered(asking("profile", str(artifact), *words, "--json"))
    assert (found, said in data["message"]) == (code, True), data["message"]
    assert default_store().all() == ()


def test_measurements_are_listed_shown_compared_and_exported(
    artifact: Path, tmp_path: Path, asking: Asking
) -> None:
    store = default_store()
    store.add(EXAMPLE, label="first")
    store.add(replace(EXAMPLE, p50_ms=2.1, device="host"), label="second")
    assert "first" in asking("measurements", "list")[1]
    _, data = answered(asking("measurements", "list", "--device", "host", "--json"))
    assert [row["label"] for row in data["measurements"]] == ["second"]
    assert "2.100 ms" in asking("measurements", "show", "2")[1]
    _, data = answered(asking("measurements", "compare", "1", "2", "--json"))
    assert data["figures"]["p50_ms"] == {"a": 2.0, "b": 2.1, "ratio": 1.05}
    assert (data["same_artifact"], list(data["differs"])) == (True, ["device"])
    assert "1.05" in asking("measurements", "compare", "1", "2")[1]
    assert asking("measurements", "export", "--number", "1", "-o", "one.json")[0] == 0
    assert read_measurement(tmp_path / "one.json") == EXAMPLE
    assert [item["number"] for item in json.loads(asking("measurements", "export")[1])] == [1, 2]
    assert answered(asking("measurements", "show", "9", "--json"))[0] == 2
