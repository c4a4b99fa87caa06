"""A Hugging Face folder becomes a task: with its own weights, or random ones when asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgesdk.errors import TaskError
from edgesdk.task_source import check_task, load_task, output_specs

transformers = pytest.importorskip("transformers")

CONFIG = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny_bert"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return path


def test_random_weights_are_taken_only_when_asked_and_said(folder: Path) -> None:
    with pytest.raises(TaskError, match="no weights as safetensors") as caught:
        load_task(str(folder))
    assert caught.value.next_step == f"give random:{folder} for random weights"

    task = load_task(f"random:{folder}")
    check_task(task)
    assert task.name == "tiny_bert (random weights)"
    assert [spec.name for spec in task.inputs] == ["input_ids", "attention_mask"]
    assert [tuple(x.shape) for x in task.example_inputs] == [(1, 32), (1, 32)]
    assert [(spec.name, spec.kind) for spec in output_specs(task)] == [("logits", "logits")]


def test_stored_weights_are_those_of_the_folder(folder: Path) -> None:
    kind = transformers.BertForSequenceClassification
    torch.manual_seed(3)
    model = kind(transformers.BertConfig(**CONFIG)).eval()
    model.save_pretrained(folder, safe_serialization=True)

    task = load_task(str(folder))
    assert task.name == "tiny_bert"
    ids, mask = task.example_inputs
    with torch.no_grad():
        [found] = task.model(ids, mask)
        assert torch.allclose(found, model(ids, attention_mask=mask).logits)


def test_pickled_weights_and_foreign_code_are_not_read(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(TaskError, match=r"only pytorch_model\.bin"):
        load_task(str(folder))
    changed = {**CONFIG, "model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(changed), encoding="utf-8")
    (folder / "code.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(TaskError, match="cannot read"):
        load_task(f"random:{folder}")


@pytest.mark.parametrize("text", ["{", "[]", '{"hidden_size": 3}'])
def test_other_files_are_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match="no configuration of transformers"):
        load_task(str(folder))


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"config\.json does not exist"):
        load_task(str(tmp_path))
