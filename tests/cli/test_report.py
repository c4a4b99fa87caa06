"""``edgesdk report`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from answers import Asking, answered
from whole_artifacts import measurement, write_artifact

from edgesdk.artifact import PLAN
from edgesdk.document import to_json
from edgesdk.profiling.store import default_store


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "[small]")


def test_one_page_and_one_object(asking: Asking, artifact: Path, tmp_path: Path) -> None:
    out, timed = tmp_path / "r.html", tmp_path / "m.json"
    timed.write_text(to_json(measurement(artifact)))
    arguments = ("report", str(artifact), "-o", str(out), "--measurement", str(timed))
    code, data = answered(asking(*arguments, "--json"))
    assert (code, data["status"], data["report"]) == (0, "ok", str(out))
    page = out.read_text(encoding="utf-8")
    start = page.index('id="report-data">') + len('id="report-data">')
    embedded = json.loads(page[start : page.index("</script>", start)])
    assert {key: data[key] for key in embedded} == embedded
    assert [row["figure"] for row in data["comparison"]]
    code, again = answered(asking(*arguments, "--json"))
    assert (code, again["error"]) == (11, "OutputError")
    code, text = asking("report", str(artifact), "-o", str(tmp_path / "again.html"))
    assert code == 0
    for word in ("[small]", "kept", "File size", "again.html"):
        assert word in text


def test_the_store_is_read_unless_told_not_to(
    asking: Asking, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESDK_STORE", str(tmp_path / "data"))
    words = ("report", str(artifact), "--json")
    code, data = answered(asking(*words, "-o", str(tmp_path / "none.html")))
    assert (code, data["artifacts"][0]["measurements"]) == (0, [])
    assert not (tmp_path / "data").exists()
    number = default_store().add(measurement(artifact), label="digits")
    default_store().add(measurement(artifact, artifact_sha256="0" * 64), label="another")
    code, data = answered(asking(*words, "-o", str(tmp_path / "one.html")))
    assert [item["number"] for item in data["artifacts"][0]["measurements"]] == [number]
    assert data["artifacts"][0]["verdicts"][0]["figure"]["standing"] == "measured"
    code, data = answered(asking(*words, "--no-store", "-o", str(tmp_path / "two.html")))
    assert (code, data["artifacts"][0]["measurements"]) == (0, [])


def test_a_tampered_artifact_is_exit_8_and_writes_nothing(
    asking: Asking, artifact: Path, tmp_path: Path
) -> None:
    (artifact / PLAN).write_text("{}")
    out = tmp_path / "r.html"
    code, data = answered(asking("report", str(artifact), "-o", str(out), "--json"))
    assert (code, data["error"]) == (8, "ArtifactError")
    assert not out.exists()


def test_what_is_no_artifact_or_no_measurement_is_said(
    asking: Asking, artifact: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "r.html")
    assert asking("report", str(tmp_path / "none"), "-o", out)[0] == 8
    (tmp_path / "m.json").write_text("{}")
    broken = ("--measurement", str(tmp_path / "m.json"))
    assert asking("report", str(artifact), "-o", out, *broken)[0] == 9
    assert asking("report")[0] == 2
