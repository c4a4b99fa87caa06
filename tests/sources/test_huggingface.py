"""A Hugging Face folder becomes a task: with its own weights, or random ones when asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgesdk.errors import TaskError
from edgesdk.sources.huggingface import example_inputs
from edgesdk.task_check import check_task, output_specs
from edgesdk.task_source import load_task

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
    assert caught.value.next_step == f"name it random:{folder} for random weights"

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


def test_pickled_weights_are_read_only_where_they_are_allowed(folder: Path) -> None:
    torch.manual_seed(3)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**CONFIG)).eval()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(TaskError, match=r"only pytorch_model\.bin") as caught:
        load_task(str(folder))
    assert "--allow-pickle" in str(caught.value.next_step)

    task = load_task(str(folder), allow_pickle=True)
    ids, mask = task.example_inputs
    with torch.no_grad():
        assert torch.allclose(task.model(ids, mask)[0], model(ids, attention_mask=mask).logits)


def test_weights_that_are_damaged_or_missing_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(b"not tensors at all")
    with pytest.raises(TaskError, match="transformers cannot load"):
        load_task(str(folder))
    # transformers itself would draw the classifier at random and go on.
    kind = transformers.BertForSequenceClassification
    state = kind(transformers.BertConfig(**CONFIG)).state_dict()
    del state["classifier.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(TaskError, match=r"lacks 1 of the model's weights, classifier\.weight"):
        load_task(str(folder))


def test_foreign_code_is_not_run(folder: Path) -> None:
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


def test_positions_that_start_behind_the_padding_fit_into_a_small_table() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.RobertaConfig(
        vocab_size=99, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=40, pad_token_id=1,
    )  # fmt: skip
    model = transformers.RobertaModel(config).eval()
    named = example_inputs(model)
    assert named["input_ids"].shape == (1, 38)
    with torch.no_grad():
        model(**named)
