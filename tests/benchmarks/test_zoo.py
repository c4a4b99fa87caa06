"""The zoo's bookkeeping, and that its own networks are what they should be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import zoo
import zoo_case
from zoo_networks import OWN
from zoo_transformers import ARCHITECTURES


@pytest.mark.parametrize("name", OWN)
def test_own_networks_answer_each_sample_by_itself(name: str) -> None:
    torch.manual_seed(0)
    module, shaped = zoo_case.build(name)
    batch = zoo_case.samples(shaped, 3)
    with torch.no_grad():
        together, alone = module(*batch), module(*(tensor[:1] for tensor in batch))
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


def test_there_are_at_least_forty_architectures() -> None:
    assert len({*OWN, *ARCHITECTURES}) == len(OWN) + len(ARCHITECTURES) >= 40


def test_a_run_goes_on_where_it_was_and_drops_a_torn_line(tmp_path: Path) -> None:
    row = {
        "name": "lstm", "target": "onnx", "scheme": "int8", "pruned": False,
        "status": "refused", "detail": "d",
    }  # fmt: skip
    path = tmp_path / "zoo.jsonl"
    path.write_text(json.dumps(row) + '\n{"name": "gr', encoding="utf-8")
    assert zoo.read_rows(path) == {("lstm", "onnx", "int8", False): row}
    assert zoo.read_rows(tmp_path / "missing.jsonl") == {}


@pytest.mark.slow
def test_a_case_that_takes_too_long_or_dies_has_crashed_and_the_next_one_runs() -> None:
    with zoo.Worker() as worker:
        late = worker.run(("lstm", "onnx", "fp32", False), limit_s=0.05)
        assert (late["status"], late["detail"]) == ("crashed", "not done after 0.05 s")
        case = ("autoencoder", "onnx", "fp16", False)
        worker._process.kill()
        worker._process.join()
        assert worker.run(case, limit_s=60)["detail"] == "died of SIGKILL"
        assert worker.run(case, limit_s=60)["status"] == "interpreted"


class Constant(torch.nn.Linear):
    """A network whose output does not depend on its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(x))


def test_a_network_that_answers_always_the_same_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = Constant(3, 2), (torch.zeros(1, 3),)
    monkeypatch.setattr(zoo_case, "build", lambda name: built)
    row = zoo_case.run_case("constant", "onnx", "fp32", pruned=False)
    assert row["status"] == "crashed"
    assert "output 0 hardly depends on the input" in row["detail"]


def test_the_table_counts_by_target_and_scheme_and_tells_every_other_end() -> None:
    ends = ("interpreted", "refused", "wrong", "crashed")
    rows = [
        {"name": name, "target": "onnx", "scheme": "int8", "pruned": name == "d",
         "status": status, "detail": "why"}
        for name, status in zip("abcd", ends, strict=True)
    ]  # fmt: skip
    text = zoo.table(rows)
    assert "| onnx | int8 | 3 | 1 (33 %) | 1 | 1 | 0 |" in text
    assert "| onnx | int8, pruned | 1 | 0 (0 %) | 0 | 0 | 1 |" in text
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- onnx int8 b: refused: why",
        "- onnx int8 c: wrong: why",
        "- onnx int8, pruned d: crashed: why",
    ]
