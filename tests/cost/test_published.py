import gzip
from pathlib import Path

import pytest

from edgesdk.cost.published import Suspect, read_graphs, read_rows, read_suspects
from edgesdk.errors import MeasurementError

HEADER = "source,device,runtime,precision,model,latency_ms,energy_uj\n"


def table(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_are_in_seconds_and_joules(tmp_path: Path) -> None:
    text = HEADER + "web,Phone,tflite,float,net,2.5,\nweb,Board,cmsis,int8,net,10,500\n"
    phone, board = read_rows(table(tmp_path, text))
    assert (phone.device, phone.seconds, phone.energy_j) == ("Phone", pytest.approx(2.5e-3), None)
    assert board.energy_j == pytest.approx(5e-4)


@pytest.mark.parametrize("latency", ["", "-1", "0", "nan", "inf", "5 ms", "fast"])
def test_a_latency_that_cannot_be_names_its_line(tmp_path: Path, latency: str) -> None:
    text = HEADER + f"web,Phone,tflite,float,a,1,\nweb,Phone,tflite,float,b,{latency},\n"
    with pytest.raises(MeasurementError, match=r"line 3: latency_ms is '.*positive number"):
        read_rows(table(tmp_path, text))


def test_a_negative_energy(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="energy_uj"):
        read_rows(table(tmp_path, HEADER + "web,Phone,tflite,float,a,1,-3\n"))


def test_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"lacks the column\(s\) precision, latency_ms"):
        read_rows(table(tmp_path, "device,runtime,model\n"))


def test_a_unit_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="latency_us.*latency_ms"):
        read_rows(table(tmp_path, "device,runtime,precision,model,latency_us\n"))


def test_a_file_that_is_not_a_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xff\xfe\x00rows")
    with pytest.raises(MeasurementError):
        read_rows(path)
    with pytest.raises(MeasurementError, match="cannot be read"):
        read_rows(tmp_path / "none.csv")


def test_a_damaged_graph_is_reported_and_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "torn.json.gz").write_bytes(gzip.compress(b'{"model": "x"}')[:-9])
    (tmp_path / "other.json.gz").write_bytes(gzip.compress(b'{"model": "x"}'))
    graphs, problems = read_graphs([tmp_path])
    assert not graphs
    assert set(problems) == {"torn", "other"}


def test_no_graph_folder(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no folder"):
        read_graphs([tmp_path / "none"])


def test_a_suspect_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "suspects.toml"
    path.write_text('[[suspect]]\nmodel = "a"\nruntime = "tflite"\nreason = "odd"\n')
    assert read_suspects(path) == (Suspect(model="a", runtime="tflite", reason="odd"),)
    for text in ('[[suspect]]\nmodel = "a"\n', '[[suspect]]\nmodel = "a"\nreason = " "\n', "x"):
        path.write_text(text)
        with pytest.raises(MeasurementError):
            read_suspects(path)
