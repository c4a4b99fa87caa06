"""The rebuilt MLPerf Tiny references: they are the networks in the files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.errors import TaskError
from edgesdk.task_check import calibration_batches, check_task
from edgesdk.task_source import load_task

FILE = Path(__file__).parents[2] / "benchmarks" / "tasks" / "tiny_references.py"
DATA = Path(__file__).parents[3] / "shared" / "data" / "mlperf_tiny"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the reference networks are not in {DATA}")
@pytest.mark.parametrize(
    ("name", "file"),
    [("resnet8", "pretrainedResnet.tflite"), ("ds_cnn", "kws_ref_model_float32.tflite")],
)
def test_a_rebuilt_network_computes_what_its_file_does(name: str, file: str) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    task = load_task(f"{FILE}:{name}")
    check_task(task)
    interpreter = litert.Interpreter(str(DATA / file))
    interpreter.allocate_tensors()
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    for index, (sample,) in enumerate(calibration_batches(task)):
        interpreter.set_tensor(given["index"], sample.permute(0, 2, 3, 1).contiguous().numpy())
        interpreter.invoke()
        with torch.no_grad():
            found = task.model(sample).softmax(1)
        expected = torch.from_numpy(interpreter.get_tensor(answer["index"]))
        # Hybrid kernels round what they read to int8, so DS-CNN's file differs by that.
        assert torch.allclose(found, expected, atol=1e-4 if name == "resnet8" else 0.05)
        if index == 20:
            break


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the reference networks are not in {DATA}")
def test_resnet8_scores_what_its_file_does() -> None:
    task = load_task(f"{FILE}:resnet8")
    predict = model_predict(task.model, torch.device("cpu"))
    assert evaluate_task(task, predict, "test") == pytest.approx(0.881)


def test_missing_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert.interpreter")
    monkeypatch.setenv("EDGESDK_DATA", str(tmp_path))
    with pytest.raises(TaskError, match=r"pretrainedResnet\.tflite does not exist.*EDGESDK_DATA"):
        load_task(f"{FILE}:resnet8")
