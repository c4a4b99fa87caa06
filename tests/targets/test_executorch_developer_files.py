"""What ExecuTorch's own tools make of the files that are written for them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from executorch_nets import compressed, emitted, model_of, runtime, samples, trained
from torch import nn

from edgesdk.artifact import size_bytes
from edgesdk.task import Tensors, output_tensors
from edgesdk_executorch import TARGET
from edgesdk_executorch.developer_files import BUNDLE, BUNDLED_AT_MOST, RECORD

pytestmark = [pytest.mark.slow, pytest.mark.toolchain]


class Normed(nn.Module):
    """A layer in the delegate and one that ExecuTorch's own kernels compute."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.inner(x))


def answers(net: nn.Module, inputs: Tensors) -> Tensors:
    with torch.no_grad():
        return output_tensors(net(*inputs))


def verified(content: bytes, case: int) -> None:
    """Run a bundled program's inference in the wheel's runtime; raises where outputs differ."""
    import executorch.kernels.quantized  # noqa: F401 - registers the quantize kernels
    from executorch.extension.pybindings import portable_lib

    bundle = portable_lib._load_bundled_program_from_buffer(content)
    bundle.verify_result_with_bundled_expected_output("forward", case, 1e-4, 1e-4)


def test_the_inspector_names_layers_by_the_record(tmp_path: Path) -> None:
    import executorch.kernels.quantized  # noqa: F401 - registers the quantize kernels
    from executorch.devtools import Inspector
    from executorch.extension.pybindings import portable_lib

    model = model_of(trained(Normed()), "fp32", [(8,)])
    emission = TARGET.emit(model, runtime(), tmp_path)
    content = (tmp_path / emission.files[0]).read_bytes()
    module = portable_lib._load_for_executorch_from_buffer(content, enable_etdump=True)
    module.run_method("forward", model.example_inputs)
    module.write_etdump_result_to_file(str(tmp_path / "run.etdp"))
    inspector = Inspector(etdump_path=str(tmp_path / "run.etdp"), etrecord=str(tmp_path / RECORD))
    events = [event for block in inspector.event_blocks for event in block.events]
    layers = {
        event.name: {path for of in event.module_hierarchy.values() for path, _ in of.values()}
        for event in events
        if event.module_hierarchy
    }
    assert "inner" in layers["DELEGATE_CALL"]
    assert any("norm" in found for name, found in layers.items() if "layer_norm" in name)


def test_a_record_holds_no_weights_no_source_and_no_chance(tmp_path: Path) -> None:
    wide = model_of(trained(nn.Sequential(nn.Linear(512, 512), nn.ReLU())), "fp32", [(512,)])
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        emission = TARGET.emit(wide, runtime(), tmp_path / name)
        written.append((tmp_path / name / RECORD).read_bytes())
    assert written[0] == written[1]
    assert emission.developer_files == (RECORD,)
    with zipfile.ZipFile(tmp_path / "first" / RECORD) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert sum(map(len, held.values())) < 100_000  # the weights alone are a megabyte
    here = str(Path(__file__).parent).encode()
    assert not any(b"stack_trace" in content or here in content for content in held.values())


def test_a_bundled_program_is_verified_by_the_runtime_and_off_the_size(tmp_path: Path) -> None:
    folder, emission = emitted("two_in_two_out", "fp32")
    net = compressed("two_in_two_out", "fp32").module
    inputs = samples([(3, 8, 8), (6,)], 5, seed=7)
    outputs = answers(net, inputs)
    (tmp_path / "model.pte").write_bytes((folder / "model.pte").read_bytes())
    assert TARGET.bundle(tmp_path, emission, inputs, outputs) == (BUNDLE,)
    content = (tmp_path / BUNDLE).read_bytes()
    for case in range(3):  # five samples fill three batches of two
        verified(content, case)
    with pytest.raises(RuntimeError):
        verified(content, 3)
    assert BUNDLE not in emission.files
    assert size_bytes(folder, emission.files) == (folder / "model.pte").stat().st_size

    TARGET.bundle(tmp_path, emission, inputs, tuple(output + 0.1 for output in outputs))
    with pytest.raises(RuntimeError):
        verified((tmp_path / BUNDLE).read_bytes(), 0)


def test_a_bundled_program_reads_back_with_the_samples_it_was_given(tmp_path: Path) -> None:
    from executorch.devtools.bundled_program.serialize import (
        deserialize_from_flatbuffer_to_bundled_program,
    )

    folder, emission = emitted("perceptron", "int8")
    (tmp_path / "model.pte").write_bytes((folder / "model.pte").read_bytes())
    inputs = samples([(20,)], 64, seed=8)
    outputs = answers(compressed("perceptron", "int8").module, inputs)
    TARGET.bundle(tmp_path, emission, inputs, outputs)
    read = deserialize_from_flatbuffer_to_bundled_program((tmp_path / BUNDLE).read_bytes())
    [suite] = read.method_test_suites
    assert suite.method_name == "forward"
    assert len(suite.test_cases) == BUNDLED_AT_MOST
    held = suite.test_cases[1].inputs[0].val
    assert held.sizes == [2, 20]
    assert held.data == inputs[0][2:4].contiguous().numpy().tobytes()
    assert bytes(read.program) == (tmp_path / "model.pte").read_bytes()
