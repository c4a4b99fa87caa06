"""The zoo's bookkeeping, and that its own networks are what they should be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import zoo
from zoo_networks import OWN
from zoo_transformers import ARCHITECTURES


@pytest.mark.parametrize("name", OWN)
def test_own_networks_answer_each_sample_by_itself(name: str) -> None:
    torch.manual_seed(0)
    module, shaped = zoo.build(name)
    batch = zoo.samples(shaped, 3)
    with torch.no_grad():
        together, alone = module(*batch), module(*(tensor[:1] for tensor in batch))
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


def test_there_are_at_least_forty_architectures() -> None:
    assert len({*OWN, *ARCHITECTURES}) == len(OWN) + len(ARCHITECTURES) >= 40


def test_a_run_goes_on_where_it_was_and_drops_a_torn_line(tmp_path: Path) -> None:
    row = {"name": "lstm", "target": "onnx", "scheme": "int8", "status": "refused", "detail": "d"}
    path = tmp_path / "zoo.jsonl"
    path.write_text(json.dumps(row) + '\n{"name": "gr', encoding="utf-8")
    assert zoo.read_rows(path) == {("lstm", "onnx", "int8"): row}
    assert zoo.read_rows(tmp_path / "missing.jsonl") == {}


def test_a_case_that_takes_too_long_has_failed() -> None:
    row = zoo.run_apart("lstm", "onnx", "fp32", limit_s=0.05)
    assert (row["status"], row["detail"]) == ("failed", "not done after 0 s")


def test_the_table_counts_by_target_and_scheme_and_tells_every_other_end() -> None:
    ends = ("interpreted", "refused", "stopped", "failed")
    rows = [
        {"name": name, "target": "onnx", "scheme": "int8", "status": status, "detail": "why"}
        for name, status in zip("abcd", ends, strict=True)
    ]
    text = zoo.table(rows)
    assert "| onnx | int8 | 4 | 1 (25 %) | 1 | 1 | 1 |" in text
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- onnx int8 b: refused: why",
        "- onnx int8 c: stopped: why",
        "- onnx int8 d: failed: why",
    ]
