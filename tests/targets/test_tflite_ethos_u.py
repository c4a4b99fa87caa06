"""Files for the Ethos-U: what Vela makes of them, what stays on the CPU, and what Vela refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tflite_nets import compressed
from torch import Tensor, nn

from edgesdk import target
from edgesdk.artifact import Check
from edgesdk.device import Vela
from edgesdk.device_files import load_device
from edgesdk.errors import ArtifactError, ProfileError, TargetUnavailable, UnsupportedModel
from edgesdk.host_runtime import HostRuntime
from edgesdk.target import Emission
from edgesdk_tflite import TARGET, ethos_u_estimates, packages, vela
from edgesdk_tflite.ethos_u import BEFORE_VELA, check_compiled, placed_operators
from edgesdk_tflite.ethos_u_estimates import estimate_figures, planned_bytes
from edgesdk_tflite.flatbuffer import ETHOS_U, pack, parse_model, read_model, unpack
from edgesdk_tflite.micro import MicroSession
from edgesdk_tflite.vela import Compiled, compile_for_ethos_u

pytestmark = pytest.mark.toolchain

DIGITS = Path(__file__).parents[2] / "examples/artifacts/digits_microcontroller/model.tflite"
RUNTIME = load_device("corstone_300").runtime_for("tflite")
assert RUNTIME.vela is not None
OPTIONS: Vela = RUNTIME.vela
NOTHING = Emission(files=("model.tflite",), inputs=(), outputs=(), tool_versions={}, layer_of={})


@pytest.fixture(scope="module")
def digits() -> Compiled:
    return compile_for_ethos_u(DIGITS, OPTIONS)


def failed(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_the_profile_leads_with_the_ethos_u_and_the_cpu_alone_is_another_device() -> None:
    assert (RUNTIME.unit, RUNTIME.target) == ("npu", "tflite")
    alone = load_device("corstone_300_cpu").runtime_for("tflite")
    assert (alone.unit, alone.vela) == ("cpu", None)
    assert TARGET.capability(RUNTIME).estimates == ("latency_ms", "memory_bytes")
    assert TARGET.capability(alone).estimates == ()


def test_what_runs_here_is_the_network_before_vela() -> None:
    host = TARGET.host_runtime(RUNTIME)
    assert host.standing == "interpreted"
    assert "before Vela" in host.note
    assert TARGET.host_runtime(replace(RUNTIME, vela=None)) == HostRuntime(name="tflite-micro")


def test_without_vela_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = target.installed_version
    monkeypatch.setattr(
        target, "installed_version", lambda name: None if name == packages.VELA else found(name)
    )
    assert TARGET.toolchain().is_complete, "a phone does not need it"
    for lacking in (
        lambda: TARGET.host_runtime(RUNTIME),
        lambda: compile_for_ethos_u(DIGITS, OPTIONS),
    ):
        with pytest.raises(TargetUnavailable, match="ethos-u-vela") as raised:
            lacking()
        assert raised.value.next_step == "pip install 'edgesdk[arm]'"


def test_a_whole_network_becomes_one_command_stream(digits: Compiled) -> None:
    before, after = read_model(DIGITS), parse_model(digits.content)

    assert [op.name for op in after.operators] == [ETHOS_U]
    assert failed(check_compiled(before, after, NOTHING)) == []
    placed = placed_operators(before, after)
    assert {count.where for count in placed} == {"ethos-u"}
    assert sum(count.count for count in placed) == len(before.operators)
    assert compile_for_ethos_u(DIGITS, OPTIONS) == digits, "equal files give equal bytes"


def test_the_plan_in_the_file_is_the_memory_that_vela_tells(digits: Compiled) -> None:
    assert planned_bytes(digits.content) == digits.sram_bytes > 0
    assert planned_bytes(DIGITS.read_bytes()) is None


def test_a_smaller_arena_is_kept(digits: Compiled) -> None:
    least = replace(OPTIONS.arena_bytes, value=1024.0)
    tight = compile_for_ethos_u(DIGITS, replace(OPTIONS, arena_bytes=least))
    assert tight.sram_bytes < digits.sram_bytes
    assert tight.cycles > digits.cycles


def test_estimates_are_vela_s_cycles_and_plan_with_intervals(
    digits: Compiled, tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(digits.content)

    figures = estimate_figures(path, RUNTIME, digits)

    latency, memory = figures["latency_ms"], figures["memory_bytes"]
    assert {latency.standing, memory.standing} == {"predicted"}
    npu_ms = 1e3 * digits.cycles / digits.clock_hz
    start_ms = 1e3 * RUNTIME.precisions["int8"].inference_overhead_s.value
    before_ms = 1e3 * RUNTIME.precisions["fp32"].inference_overhead_s.value
    assert latency.value == pytest.approx(npu_ms + start_ms + before_ms)
    assert latency.high is not None
    assert latency.high > OPTIONS.error_factor.value * npu_ms
    assert "not clocked" in latency.source
    assert memory.low == digits.sram_bytes < memory.value < memory.upper


def test_a_file_that_nothing_was_delegated_of_fails(digits: Compiled) -> None:
    """Vela writes such files without a word, and tells zero milliseconds for them."""
    before = read_model(DIGITS)
    assert failed(check_compiled(before, before, NOTHING)) == ["operators run on the Ethos-U"]


def test_a_file_of_another_network_fails(digits: Compiled) -> None:
    other = unpack(digits.content)
    for index in (*other.subgraphs[0].inputs, *other.subgraphs[0].outputs):
        other.subgraphs[0].tensors[index].quantization.scale = np.float32([0.5])
    after = parse_model(pack(other))

    wrong = failed(check_compiled(read_model(DIGITS), after, NOTHING))

    assert wrong == ["Vela's file takes and returns what the network does"]


def test_a_plan_that_is_not_of_these_tensors_is_refused(digits: Compiled) -> None:
    damaged = unpack(digits.content)
    [plan] = [entry for entry in damaged.metadata if entry.name == b"OfflineMemoryAllocation"]
    damaged.buffers[plan.buffer].data = np.zeros(4 * 20, np.uint8)
    with pytest.raises(ArtifactError, match="a plan of 17 tensors"):
        planned_bytes(pack(damaged))


def test_a_configuration_that_vela_does_not_know_is_the_profile_s_fault() -> None:
    with pytest.raises(ProfileError, match=r"System_Config\.Nowhere not found"):
        compile_for_ethos_u(DIGITS, replace(OPTIONS, system_config="Nowhere"))


def test_a_crash_of_vela_is_an_error_and_not_ours(tmp_path: Path) -> None:
    """Half a file is a segmentation fault in its compiler."""
    half = tmp_path / "half.tflite"
    half.write_bytes(DIGITS.read_bytes()[:3000])
    with pytest.raises(UnsupportedModel, match="Vela (crashed with SIG|failed)"):
        compile_for_ethos_u(half, OPTIONS)


def test_a_run_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "_TIMEOUT_S", 0.01)
    with pytest.raises(UnsupportedModel, match=r"did not end within 0\.01 s"):
        compile_for_ethos_u(DIGITS, OPTIONS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cycles_total\n1\n2\n", "a summary of 2 rows"),
        ("", "a summary of 0 rows"),
        ("core_clock\n5e8\n", "cycles_total is None"),
        ("cycles_total\nnan\n", "cycles_total is 'nan'"),
        ("cycles_total\n-1\n", "cycles_total is '-1'"),
        ("cycles_total\nmany\n", "cycles_total is 'many'"),
    ],
)
def test_a_summary_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(UnsupportedModel, match=said):
        vela._number(vela._summary(text), "cycles_total")


class Shuffling(nn.Module):
    """Channels change places between two convolutions, which Vela leaves to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3, padding=1)
        self.register_buffer("order", torch.tensor([3, 1, 2, 0, 7, 5, 6, 4]))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x)).index_select(1, self.order)
        return torch.relu(self.second(x))


@pytest.mark.slow
def test_what_stays_on_the_cpu_is_counted_named_and_priced(tmp_path: Path) -> None:
    model = compressed(Shuffling().eval(), (torch.randn(1, 3, 8, 8),), "int8")

    emission = TARGET.emit(model, RUNTIME, tmp_path)

    assert (emission.files, emission.host_files) == (("model.tflite",), (BEFORE_VELA,))
    checks = TARGET.checks(tmp_path, emission, model)
    assert failed(checks) == []
    [told] = [check.detail for check in checks if check.name == "operators run on the Ethos-U"]
    assert "on the CPU: GATHER_ND" in told
    on_cpu = [count for count in TARGET.operators(tmp_path, emission) if count.where == "cpu"]
    assert [(count.op, count.count) for count in on_cpu] == [("GATHER_ND", 1)]
    latency = emission.estimates["latency_ms"]
    assert "1 operators on the CPU by the cost model" in latency.source
    assert isinstance(TARGET.open(tmp_path, emission, "tflite-micro", 1), MicroSession)
    file = read_model(tmp_path / BEFORE_VELA)
    assert all(op.name != ETHOS_U for op in file.operators)


@pytest.mark.slow
def test_a_float_network_stays_on_the_cpu_and_says_so(tmp_path: Path) -> None:
    model = compressed(nn.Sequential(nn.Linear(8, 4)).eval(), (torch.randn(1, 8),), "fp32")

    emission = TARGET.emit(model, RUNTIME, tmp_path)

    assert emission.host_files == ()
    assert {count.where for count in TARGET.operators(tmp_path, emission)} == {"builtin"}
    assert "every operator is left to the CPU" in emission.estimates["latency_ms"].source
    assert set(emission.estimates) == set(ethos_u_estimates.ESTIMATES)
