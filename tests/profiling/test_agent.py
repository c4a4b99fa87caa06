"""The agent by itself: what it measures, what it refuses, and that nobody else's clock runs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from profiled import MODEL, make_artifact, make_python
from safetensors.torch import save_file

from edgesdk import parity
from edgesdk.artifact import GOLDEN, MANIFEST, TensorSpec, sha256_of
from edgesdk.document import to_builtins
from edgesdk.measurement_file import read_measurement
from edgesdk.profiling.agent import artifact as agent_artifact
from edgesdk.profiling.agent import in_process, program, runtimes, self_test, tensors, timing
from edgesdk.profiling.agent.operators import join
from edgesdk.profiling.agent.problem import AgentError
from edgesdk.profiling.agent.sessions import SESSIONS
from edgesdk.profiling.agent_file import agent_bytes
from edgesdk.running import adapter
from edgesdk.verification import _GOLDEN_SQNR_DB


def run_agent(
    python: Path, artifact: Path, out: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    agent = out.with_name("agent.pyz")
    agent.write_bytes(agent_bytes())
    words = [str(python), str(agent), str(artifact), "-o", str(out), *options]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)


def test_it_writes_a_measurement_of_the_file(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out")
    before = sha256_of(artifact)
    done = run_agent(make_python(tmp_path / "p"), artifact, tmp_path / "m.json")
    assert done.returncode == 0, done.stderr
    found = read_measurement(tmp_path / "m.json")
    assert found.artifact_sha256 == sha256_of(artifact / MODEL)
    assert (found.device, found.identity.runtime, found.identity.version) == (
        "host", "litert", "2.3.0",
    )  # fmt: skip
    assert found.p50_ms >= 1.0
    assert found.runs >= 100
    assert found.self_test is not None
    assert (found.self_test.status, found.self_test.samples) == ("passed", 4)
    assert found.per_op is None
    assert any("no times of operators" in note for note in found.notes)
    assert sha256_of(artifact) == before
    assert not list(tmp_path.glob("*.part"))


def test_a_wrong_answer_fails_the_self_test(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out")
    python = make_python(tmp_path / "p", invoke="self.y = 3 * self.x; return")
    assert run_agent(python, artifact, tmp_path / "m.json").returncode == 0
    test = read_measurement(tmp_path / "m.json").self_test
    assert test is not None
    assert test.status == "failed"
    wanted = torch.from_numpy(agent_artifact.read_golden(artifact / GOLDEN)[1][0].copy())
    assert test.sqnr_db == pytest.approx(parity.sqnr_db((wanted,), (1.5 * wanted,)), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "python", "said"),
    [
        ({"runtime": "coreml"}, {}, "the artifact is for 'coreml'"),
        ({}, {"version": "2.2.9"}, "is 2.2.9 here, the artifact needs 2.3.0 or newer"),
        ({}, {"load": "raise ValueError('not a flatbuffer')"}, "cannot load .*not a flatbuffer"),
    ],
)
def test_it_refuses_with_one_line(
    tmp_path: Path, changes: dict[str, Any], python: dict[str, str], said: str
) -> None:
    artifact = make_artifact(tmp_path / "out", **changes)
    done = run_agent(make_python(tmp_path / "p", **python), artifact, tmp_path / "m.json")
    assert done.returncode == 9
    assert len(done.stderr.splitlines()) == 1
    assert re.search(said, done.stderr), done.stderr
    assert not (tmp_path / "m.json").exists()


def test_a_damaged_or_escaping_artifact_is_refused(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out")
    (artifact / MODEL).write_bytes(b"another model")
    with pytest.raises(AgentError, match="not the file that was sealed"):
        agent_artifact.read_manifest(artifact)
    (tmp_path / "secret").write_text("x")
    for name in ("../secret", str(tmp_path / "secret")):
        document = json.loads((artifact / MANIFEST).read_text())
        document["sha256"] = {name: sha256_of(tmp_path / "secret")}
        (artifact / MANIFEST).write_text(json.dumps(document))
        with pytest.raises(AgentError, match="not inside the artifact"):
            agent_artifact.read_manifest(artifact)
    (artifact / "link").symlink_to(tmp_path / "secret")
    document["sha256"] = {"link": sha256_of(tmp_path / "secret")}
    (artifact / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(AgentError, match="not inside the artifact"):
        agent_artifact.read_manifest(artifact)


class Counting:
    """A session that counts every call made of it."""

    name, wheel, no_hooks = "litert", "ai-edge-litert", ""
    calls: list[str]

    def __init__(self, *_: Any, **options: Any) -> None:
        Counting.calls.append("hooked session" if options.get("hooks") else "session")
        self.threads = 1

    def bind(self, inputs: Any) -> Any:
        Counting.calls.append("bind")
        return lambda: Counting.calls.append("invoke")

    def run(self, inputs: Any) -> list[Any]:
        Counting.calls.append("run")
        return [2 * inputs[0]]

    def events(self, skip: int) -> list[Any]:
        Counting.calls.append("events")
        return [("convolution", True, [1e-6, 2e-6])]  # ms: this runtime does nothing


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Counting.calls = []
    monkeypatch.setitem(SESSIONS, "litert", Counting)
    monkeypatch.setattr(runtimes.metadata, "version", lambda _: "2.3.0")
    monkeypatch.setattr(in_process, "TIMED_MS", 1.0)
    monkeypatch.setattr(in_process, "WARMUP_MS", 1.0)
    return Counting.calls


def test_without_hooks_the_runtime_is_not_called_once_more(
    tmp_path: Path, counting: list[str]
) -> None:
    artifact, out = make_artifact(tmp_path / "out"), tmp_path / "m.json"
    assert program.main([str(artifact), "-o", str(out), "--no-hooks"]) == 0
    found = read_measurement(out)
    # Loading twice (the first also imports), every counted inference, the golden vectors: no more.
    assert counting.count("invoke") == found.warmup_runs + found.runs
    assert counting.count("run") == 4
    assert len(counting) == 2 + 1 + counting.count("invoke") + 4
    assert "hooked session" not in counting


def test_with_hooks_the_totals_are_still_those_without(tmp_path: Path, counting: list[str]) -> None:
    artifact, out = make_artifact(tmp_path / "out"), tmp_path / "m.json"
    assert program.main([str(artifact), "-o", str(out)]) == 0
    found = read_measurement(out)
    before = counting[: counting.index("hooked session")]
    assert before.count("invoke") == found.warmup_runs + found.runs
    assert found.per_op is not None
    assert found.per_op.source == "ETDump"


@given(st.integers(1, 5), st.integers(1, 3), st.booleans())
@settings(max_examples=30)
def test_it_feeds_a_file_as_edgesdk_does(count: int, batch: int, is_integer: bool) -> None:
    quantized = {"dtype": "int8", "scale": 0.05, "zero_point": -3} if is_integer else {}
    fields: dict[str, Any] = {"dtype": "float32", **quantized}
    spec = TensorSpec(name="x", shape=(batch, 4, 5, 2), from_torch=(0, 2, 3, 1), **fields)
    values = torch.randn(count, 2, 4, 5)
    stacked, number = adapter.encode_inputs((values,), (spec,))
    batches = tensors.encode([values.numpy()], [to_builtins(spec)])
    assert np.array_equal(np.stack([batch[0] for batch in batches]), stacked[0])
    [wanted] = adapter.decode_outputs(stacked, (spec,), number)
    [got] = tensors.decode(batches, [to_builtins(spec)], number)
    assert np.array_equal(got, wanted.numpy())


@given(st.floats(1e-9, 10), st.integers(1, 4))
@settings(max_examples=30)
def test_it_judges_as_edgesdk_does(noise: float, samples: int) -> None:
    wanted = torch.randn(samples, 6)
    got = wanted + noise * torch.randn(samples, 6)
    expected = parity.sqnr_db((wanted,), (got,))
    assert self_test.sqnr_db([wanted.numpy()], [got.numpy()]) == pytest.approx(expected)
    assert self_test.REPLAY_SQNR_DB == _GOLDEN_SQNR_DB
    assert dict(parity.MINIMUM_SQNR_DB) == self_test.FLOAT_SQNR_DB


def test_a_clock_that_runs_backwards_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([5_000_000, 1_000_000])
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: next(readings))
    with pytest.raises(AgentError, match="clock went backwards"):
        timing.time_runs(lambda: None, 1)


def test_kernels_are_joined_to_layers_by_kind_and_order(tmp_path: Path) -> None:
    nodes = {
        "0.depthwise_conv2d_3": "a", "0.add_4": "b", "0.conv2d_5": "c", "0.fully_connected_9": "d",
    }  # fmt: skip
    document = {"runtime_op_to_layer": nodes}
    (tmp_path / "profile_map.json").write_text(json.dumps(document))
    events = [
        ("Convolution (NHWC, F32) IGEMM", True),
        ("Add (ND, F32)", True),
        ("Convolution (NHWC, F32) GEMM", True),
        ("Transpose (ND, X32)", True),
        ("native_call_add.out", False),
    ]
    assert join(events, tmp_path) == ["a", "b", "c", None, None]
    # One convolution more than the graph has: nothing says which is which.
    assert join([*events, events[0]], tmp_path) == [None, "b", None, None, None, None]


def test_artifacts_side_by_side_are_timed_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_process, "TIMED_MS", 1e-6)
    monkeypatch.setattr(in_process, "FEWEST_RUNS", 20)
    calls: list[str] = []
    samples = in_process.time_in_turns([lambda: calls.append("a"), lambda: calls.append("b")])
    assert [len(one) for one in samples] == [20, 20]
    assert "".join(calls) == 10 * "aabb"


def test_a_slow_network_is_not_timed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: next(clock) * 1_000_000_000)
    [samples] = in_process.time_in_turns([lambda: None])
    assert set(samples) == {1000.0}
    assert len(samples) == 20


def test_two_artifacts_give_two_measurements(tmp_path: Path) -> None:
    one = make_artifact(tmp_path / "out")
    other = make_artifact(tmp_path / "original", scheme="int8")
    beside = ("--beside", str(other), str(tmp_path / "b.json"), "--no-hooks")
    done = run_agent(make_python(tmp_path / "p"), one, tmp_path / "a.json", *beside)
    assert done.returncode == 0, done.stderr
    first, second = (read_measurement(tmp_path / name) for name in ("a.json", "b.json"))
    assert first.self_test == second.self_test
    assert (first.peak_memory, second.peak_memory) == (None, None)
    assert min(first.p50_ms, second.p50_ms) >= 1.0
    elsewhere = make_artifact(tmp_path / "pte", runtime="executorch")
    beside = ("--beside", str(elsewhere), str(tmp_path / "c.json"), "--no-hooks")
    done = run_agent(make_python(tmp_path / "q"), one, tmp_path / "d.json", *beside)
    assert (done.returncode, "different runtimes" in done.stderr) == (9, True)


def test_golden_words_stay_integers(tmp_path: Path) -> None:
    """A language model takes int64 token ids, and its golden inputs are such."""
    words = torch.randint(-(2**40), 2**40, (4, 3))
    answers = torch.randn(4, 3)
    save_file({"input.0": words, "output.0": answers}, tmp_path / GOLDEN)
    [inputs], [outputs] = agent_artifact.read_golden(tmp_path / GOLDEN)
    assert inputs.dtype == np.int64
    assert np.array_equal(inputs, words.numpy())
    assert np.array_equal(outputs, answers.numpy())
    spec = to_builtins(TensorSpec(name="x", shape=(1, 3), dtype="int64", from_torch=(0, 1)))
    fed = tensors.encode([inputs], [spec])
    assert fed[0][0].dtype == np.int64
    assert np.array_equal(np.concatenate([batch[0] for batch in fed]), words.numpy())


def test_golden_values_of_another_kind_are_refused(tmp_path: Path) -> None:
    save_file({"input.0": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / GOLDEN)
    with pytest.raises(AgentError, match="holds BF16"):
        agent_artifact.read_golden(tmp_path / GOLDEN)
