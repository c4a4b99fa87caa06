"""Keras models and SavedModels: what is asked of TensorFlow, and what becomes of its answers."""

from __future__ import annotations

import copy
import fcntl
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgesdk.budget import Budget
from edgesdk.errors import (
    BudgetInfeasible,
    TargetUnavailable,
    TaskError,
    UnsupportedModel,
    UsageError,
)
from edgesdk.pipeline import compile_task, plan_task
from edgesdk.sources import tensorflow
from edgesdk.sources.keras import KerasModel, keras_model, load_keras
from edgesdk.sources.tensorflow import VARIABLE
from edgesdk.task import InputSpec, OutputSpec, Task
from edgesdk.task_key import task_key
from edgesdk.task_source import load_task
from edgesdk.trace import trace

NETS = Path(__file__).with_name("keras_nets.py")
OPENED = {
    "inputs": [{"name": "rows", "shape": [None, 3], "dtype": "float32"}],
    "outputs": ["head"],
    "probabilities": True,
    "layers": ["conv", "head"],
    "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file that passes for one of Keras'."""
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"")
    return path


def stub(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let an executable that runs a script stand for the Python that has TensorFlow."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\nimport sys, json\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(path))


def answering(folder: Path, monkeypatch: pytest.MonkeyPatch, **opened: Any) -> None:
    """Let it open a model that says this of itself, and answer nothing else."""
    reply = json.dumps({**OPENED, **opened})
    stub(folder, monkeypatch, f"sys.stdin.readline()\nprint({reply!r}, flush=True)")


def test_a_model_says_what_it_takes(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(tmp_path, monkeypatch)
    task = load_keras(saved)
    assert task.name == "net"
    assert [tuple(example.shape) for example in task.example_inputs] == [(1, 3)]
    assert task.inputs == (InputSpec(name="rows"),)
    assert task.outputs == (OutputSpec(name="head", kind="probabilities"),)
    assert task.calibration is None
    assert isinstance(task.model, KerasModel)
    assert copy.deepcopy(task.model) is task.model, "one process runs it"


def test_a_key_stands_for_weights_and_signature(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(tmp_path, monkeypatch)
    task = load_keras(saved)
    same, other = keras_model(saved), keras_model(saved, signature="other")
    assert task_key(replace(task, model=same)) == task_key(task)
    assert task_key(replace(task, model=other)) != task_key(task)


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("net_1/conv_1/convolution", "conv"),
        ("net_1/relu_1/Relu;net_1/norm_1/add_1;net_1/conv_1/convolution", "conv"),
        ("net_1/block/head_1/MatMul", "head"),
        ("PartitionedCall:0", ""),
        ("arith.constant1", ""),
    ],
)
def test_layers_are_found_in_the_converter_s_names(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensor: str, layer: str
) -> None:
    answering(tmp_path, monkeypatch)
    assert keras_model(saved).layer_of(tensor) == layer


@pytest.mark.parametrize("given", [torch.zeros(1, 4), torch.zeros(1, 3, dtype=torch.int64)])
def test_other_inputs_than_the_model_s_are_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: torch.Tensor
) -> None:
    answering(tmp_path, monkeypatch)
    with pytest.raises(TaskError, match="was given") as raised:
        keras_model(saved)(given)
    assert raised.value.expected == "input 'rows' is [?, 3] float32"


def test_a_size_left_open_asks_for_example_inputs(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = [None, None, None, 3]
    answering(tmp_path, monkeypatch, inputs=[{"name": "x", "shape": shape, "dtype": "float32"}])
    with pytest.raises(TaskError, match=r"input 'x' is \[\?, \?, \?, 3\] float32") as raised:
        load_keras(saved)
    assert "example_inputs" in str(raised.value.next_step)


def test_a_batch_that_the_model_fixes_is_the_file_s(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(tmp_path, monkeypatch, inputs=[{"name": "x", "shape": [4, 3], "dtype": "float32"}])
    task = load_keras(saved)
    assert task.batch_size == 4
    with pytest.raises(UnsupportedModel, match="takes a batch of 4"):
        task.model.float_file((torch.zeros(1, 3),))


_DIES = [
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "with SIGSEGV"),
    ("sys.exit('no such thing')", r"ended with exit code 1 \(no such thing\)"),
    ('sys.stdin.readline(); print(\'{"failed": "oh"}\', flush=True)', "oh"),
    (
        "sys.stdin.readline(); print(json.dumps({'refused': {'found': 'no', 'expected': 'yes', "
        "'next_step': ''}}), flush=True)",
        r"net\.keras: no\. Expected: yes\.$",
    ),
]


@pytest.mark.parametrize(("script", "said"), _DIES)
def test_what_goes_wrong_in_its_process_is_told(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    stub(tmp_path, monkeypatch, script)
    with pytest.raises(TaskError, match=said):
        keras_model(saved)


def test_a_python_without_tensorflow_is_told(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path, monkeypatch, "import tensorflow_of_ours")
    with pytest.raises(TargetUnavailable, match="has no TensorFlow") as raised:
        keras_model(saved)
    assert VARIABLE in str(raised.value.next_step)


def test_a_process_that_does_not_answer_is_ended(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorflow, "_TIMEOUTS_S", {"open": 0.2})
    stub(tmp_path, monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(TaskError, match=r"did not answer within 0\.2 s"):
        keras_model(saved)


def test_a_python_that_is_none_is_told(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(TargetUnavailable, match="cannot be run") as raised:
        keras_model(saved)
    assert VARIABLE in str(raised.value.next_step)


def test_what_is_no_model_is_told_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match="is no SavedModel: it holds no saved_model.pb"):
        keras_model(tmp_path / "empty")
    with pytest.raises(TaskError, match="a SavedModel of TensorFlow with a saved_model.pb"):
        load_task(str(tmp_path / "empty"))
    with pytest.raises(TaskError, match="does not exist"):
        load_task(str(tmp_path / "none.keras"))
    (tmp_path / "old.h5").write_bytes(b"\x89HDF")
    with pytest.raises(TaskError, match="Keras 3 has given up") as raised:
        load_task(str(tmp_path / "old.h5"))
    assert "model.save('model.keras')" in str(raised.value.next_step)
    (tmp_path / "broken.keras").write_bytes(b"PK")
    with pytest.raises(TaskError, match=r"is not a \.keras file"):
        load_task(str(tmp_path / "broken.keras"))


def test_a_folder_with_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    (folder / "variables").symlink_to(tmp_path / "secret")
    with pytest.raises(TaskError, match="holds the link variables"):
        keras_model(folder)


def test_other_targets_and_devices_without_litert_are_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(tmp_path, monkeypatch)
    task = load_keras(saved)
    with pytest.raises(UsageError, match="goes to target 'tflite' alone, not to 'executorch'"):
        plan_task(task, device="raspberry_pi_5", target="executorch")
    with pytest.raises(UsageError, match=r"iPhone.* has coreml, executorch") as raised:
        plan_task(task, device="iphone_15_pro")
    assert "convert a Keras model to PyTorch" in str(raised.value.next_step)


def refusals(python: Path, paths: list[Path]) -> dict[Path, str]:
    """Return why one process refuses to open each model."""
    requests = [
        {"do": "open", "path": str(path), "signature": "",
         "kind": "saved_model" if path.is_dir() else "keras"}
        for path in paths
    ]  # fmt: skip
    done = subprocess.run(
        [str(python), "-I", str(tensorflow._WORKER)],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    replies = map(json.loads, done.stdout.splitlines())
    return {path: reply["refused"]["found"] for path, reply in zip(paths, replies, strict=True)}


@pytest.fixture(scope="session")
def nets(tensorflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the networks that ``keras_nets.py`` makes, made once for all workers."""
    folder = tensorflow_python.parents[3] / "nets"
    if not tensorflow_python.is_relative_to(tmp_path_factory.getbasetemp().parent):
        folder = tmp_path_factory.mktemp("nets")  # somebody's own environment
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "none").exists():
            subprocess.run([str(tensorflow_python), "-I", str(NETS), str(folder)], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.usefixtures("tensorflow")
class TestInTensorFlow:
    """What only TensorFlow itself can show; few, as each starts it."""

    def test_several_inputs_and_outputs_keep_their_order(self, nets: Path, tmp_path: Path) -> None:
        task = load_task(str(nets / "two.keras"))
        assert [spec.name for spec in task.inputs] == ["words", "extra"]
        assert [spec.name for spec in task.outputs] == ["classes", "level"]
        graph = trace(task.model, task.example_inputs, name=task.name)
        layers = {op.layer for op in graph.ops}
        assert {"table", "classes", "level"} <= layers
        result = compile_task(task, device="raspberry_pi_5", schemes=["fp32"], out=tmp_path / "out")
        assert result.parity is not None
        assert result.parity.status == "verified"
        assert result.parity.sqnr_db is None or result.parity.sqnr_db > 100

    def test_a_fixed_batch_is_filled_up(self, nets: Path) -> None:
        task = load_task(str(nets / "four.keras"))
        rows = torch.randn(6, 3)
        torch.testing.assert_close(task.model(rows)[:4], task.model(rows[:4]))

    def test_a_size_left_open_is_the_example_s(self, nets: Path) -> None:
        task = Task(
            name="open",
            model=keras_model(nets / "open.keras"),
            example_inputs=(torch.randn(1, 12, 10, 3),),
            version="1",
        )
        graph = trace(task.model, task.example_inputs, name=task.name)
        assert graph.tensors[graph.ops[0].outputs[0]].shape == (1, 4, 12, 10)

    def test_a_loop_is_refused_with_a_way_out(self, nets: Path) -> None:
        task = load_task(str(nets / "lstm.keras"))
        with pytest.raises(UnsupportedModel, match="holds WHILE") as raised:
            trace(task.model, task.example_inputs, name=task.name)
        assert "unroll=True" in str(raised.value.next_step)

    def test_an_exported_model_needs_no_signature(self, nets: Path) -> None:
        task = load_task(str(nets / "exported"))
        graph = trace(task.model, task.example_inputs, name=task.name)
        assert [op.kind for op in graph.ops] == ["linear"]

    def test_a_signature_can_be_named(self, nets: Path) -> None:
        rows = torch.ones(2, 3)
        down = keras_model(nets / "several", signature="down")
        torch.testing.assert_close(down(rows), torch.full((2, 2), -3.0))

    def test_an_operator_that_litert_lacks_is_named(self, nets: Path) -> None:
        task = load_task(str(nets / "lacking"))
        with pytest.raises(UnsupportedModel, match=r"LiteRT has no operator for tf\.Igamma"):
            trace(task.model, task.example_inputs, name=task.name)

    def test_what_cannot_be_taken_is_refused(self, nets: Path, tensorflow_python: Path) -> None:
        wanted = {
            "reading": "the graph holds ReadFile, which does more than compute",
            "writing": "the graph holds WriteFile, which does more than compute",
            "python": "the graph holds PyFunc, which does more than compute",
            "none": "the SavedModel has no signature",
            "several": "the SavedModel has several signatures: down, up",
            "unbuilt.keras": "the model does not say what it takes",
            "lambda.keras": "Keras 3.15.1 cannot load it",  # its own lock, behind ours
        }
        found = refusals(tensorflow_python, [nets / name for name in wanted])
        for name, said in wanted.items():
            assert found[nets / name].startswith(said), name
        assert not list(nets.rglob("edgesdk-was-here"))

    def test_a_budget_that_takes_pruning_is_refused(self, nets: Path, tmp_path: Path) -> None:
        task = load_task(str(nets / "unrolled.keras"))
        budget = Budget(size_bytes=1000)
        with pytest.raises(BudgetInfeasible, match="is not pruned here; convert it to PyTorch"):
            compile_task(task, device="raspberry_pi_5", budget=budget, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
