"""The whole way from a task to a proven artifact, with the guide's reference target."""

import errno
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs_task import blobs, lively_blobs

import edgesdk
from edgesdk.artifact import LAYERS, REPORT, read_manifest, sha256_of, size_bytes
from edgesdk.budget import Budget, Relative
from edgesdk.device import DeviceProfile
from edgesdk.document import read_json, to_builtins, to_json
from edgesdk.errors import (
    BudgetInfeasible,
    OutputError,
    ParityError,
    TargetUnavailable,
    UsageError,
)
from edgesdk.layer_change import LayerChanges
from edgesdk.plan import Distil, Factorize, Plan, Prune, Quantize
from edgesdk.result import CompileResult
from edgesdk.running import timing
from edgesdk.stages import compression, learning, runnable
from edgesdk.target import find_target
from edgesdk.task import Task, output_tensors
from edgesdk.verification import verify_artifact

pytestmark = pytest.mark.usefixtures("in_process")

HALF = Budget(size_bytes=Relative(fraction=0.7))
SMALL = Budget(size_bytes=Relative(fraction=0.25), max_drop=0.05)
TINY = Budget(size_bytes=Relative(fraction=0.15), max_drop=0.05)
MODEL = "model.safetensors"


class Steps:
    """Progress that remembers its steps, and interrupts at the first that is not ``known``."""

    def __init__(self, known: Collection[str] | None = None) -> None:
        self.names: list[str] = []
        self._known = known

    def step(self, text: str) -> None:
        self.names.append(text)
        if self._known is not None and text not in self._known:
            raise KeyboardInterrupt

    def advance(self, done: int, total: int, note: str = "") -> None:
        pass

    def show_address(self, address: str, *, is_for_phones: bool) -> None:
        pass


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared-cache")


Compile = Callable[..., CompileResult]


@pytest.fixture
def compiling(tmp_path: Path, reference_device: DeviceProfile, shared_cache: Path) -> Compile:
    def run(budget: Budget | None = None, **changes: Any) -> CompileResult:
        given: dict[str, Any] = {
            "device": reference_device,
            "budget": budget,
            "out": tmp_path / "results" / "out",
            "cache": shared_cache,
        }
        given |= changes
        return edgesdk.compile(given.pop("task", None) or blobs(), **given)

    return run


def never(*_: object, **__: object) -> Any:
    raise AssertionError("a finished step ran again")


def test_a_limit_that_a_format_meets_needs_no_training(compiling: Compile, tmp_path: Path) -> None:
    result = compiling(HALF, task=lively_blobs())
    out = tmp_path / "results" / "out"
    assert (result.status, result.artifact) == ("ok", out)
    assert result.plan.steps == (Quantize(scheme="fp16"),)
    assert os.listdir(out.parent) == ["out"]
    manifest = read_manifest(out)
    assert manifest.files == result.files == (MODEL,)
    assert manifest.parity.status == "verified"
    assert all(check.passed for check in manifest.parity.checks)
    assert manifest.verified["size_bytes"].value == size_bytes(out, manifest.files)
    assert manifest.plan_sha256 == sha256_of(out / "plan.json")
    assert read_json(Plan, out / "plan.json") == result.plan
    [verdict] = result.verdicts
    assert verdict.met
    assert verdict.condition.relative == 0.7
    assert verdict.figure == manifest.verified["size_bytes"]


def test_the_accuracy_is_of_the_artifact_and_on_test_data(compiling: Compile) -> None:
    result = compiling(HALF)
    task = blobs()
    assert task.evaluate is not None

    def original(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return output_tensors(task.model.eval()(*inputs))[0]

    wanted = task.evaluate(original, "test")
    assert result.baseline["accuracy"].value == wanted
    verified = result.verified["accuracy"]
    assert verified.standing == "verified"
    assert "500 test samples" in verified.source
    assert result.verified["accuracy_drop"].value == pytest.approx(wanted - verified.value)


def test_a_layer_of_few_directions_is_split_recovered_and_proven(
    compiling: Compile, tmp_path: Path
) -> None:
    """The second layer reads 96 channels that hold little more than four classes."""
    result = compiling(SMALL)
    factorize, distil, quantize = result.plan.steps
    assert isinstance(factorize, Factorize)
    assert list(factorize.ranks) == ["2"]
    rank = factorize.ranks["2"]
    assert (distil.kind, quantize) == ("distil", Quantize(scheme="fp16"))
    assert "1 layer split" in result.plan.option
    assert any(r.startswith(f"Layer 2 is split at rank {rank}:") for r in result.plan.reasons)
    out = tmp_path / "results" / "out"
    manifest = read_manifest(out)
    assert size_bytes(out, manifest.files) <= 0.25 * result.baseline["size_bytes"].value
    assert result.verified["accuracy_drop"].value <= 0.05
    layers = {row.layer: row for row in read_json(LayerChanges, out / LAYERS).layers}
    assert "2.0" not in layers
    before, after = layers["2"].before, layers["2"].after
    assert before is not None
    assert after is not None
    assert (before.macs, after.macs) == (96 * 96, 2 * rank * 96)
    assert layers["2"].expected_loss is not None
    assert f"Split layers in two of lower rank: 2 at rank {rank}" in (out / REPORT).read_text()
    again = compiling(None, plan=result.plan, out=tmp_path / "again")
    assert again.plan == result.plan
    assert (tmp_path / "again" / MODEL).read_bytes() == (out / MODEL).read_bytes()


def test_a_tight_limit_prunes_recovers_and_is_proven(
    compiling: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no layer gains by a split, channels go."""
    monkeypatch.setattr(learning, "gaining_splits", lambda *_, **__: ())
    model = blobs().model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = compiling(TINY, task=replace(blobs(), model=model))
    assert [type(step) for step in result.plan.steps] == [Prune, Distil, Quantize]
    assert any("low-rank splits are not offered: none of the 2" in r for r in result.plan.reasons)
    manifest = read_manifest(tmp_path / "results" / "out")
    real = size_bytes(tmp_path / "results" / "out", manifest.files)
    assert real <= 0.15 * result.baseline["size_bytes"].value
    assert result.verified["accuracy_drop"].value <= 0.05
    assert all(verdict.met for verdict in result.verdicts)
    # The user's own model stays as it was.
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_second_run_trains_and_measures_nothing_again(
    compiling: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiling(SMALL)
    for module, name in (
        (compression, "recover"),
        (learning, "measure_sensitivity"),
        (learning, "trace"),
    ):
        monkeypatch.setattr(module, name, never)
    again = compiling(SMALL, out=tmp_path / "again")
    assert sha256_of(again.artifact / MODEL) == sha256_of(first.artifact / MODEL)  # type: ignore[operator]
    assert again.plan == first.plan
    other_budget = compiling(HALF, out=tmp_path / "other")
    assert other_budget.status == "ok"


def test_another_version_of_the_task_is_learned_anew(
    compiling: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "measure_sensitivity", never)
    with pytest.raises(AssertionError, match="ran again"):
        compiling(HALF, task=replace(blobs(), version="2"))


def test_a_plan_is_replayed_to_the_same_file(compiling: Compile, tmp_path: Path) -> None:
    first = compiling(SMALL)
    plan = read_json(Plan, first.artifact / "plan.json")  # type: ignore[operator]
    again = compiling(plan=plan, out=tmp_path / "again", cache=tmp_path / "new-cache")
    assert sha256_of(again.artifact / MODEL) == sha256_of(first.artifact / MODEL)  # type: ignore[operator]
    assert again.plan == plan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task_key": "0" * 64}, "another task"),
        ({"device": "elsewhere"}, "another device"),
        ({"target": "tflite"}, "another target"),
        ({"scheme": "int8"}, "is int8, its steps end in fp16"),
        ({"scheme": "int8", "steps": (Quantize(scheme="int8"),)}, "no quantizer"),
    ],
)
def test_a_plan_for_something_else_is_refused(
    compiling: Compile, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    plan = replace(compiling(HALF).plan, **change)
    with pytest.raises(UsageError, match=said):
        compiling(plan=plan, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_replayed_plan_is_held_to_the_budget_too(compiling: Compile, tmp_path: Path) -> None:
    plan = compiling(HALF).plan
    with pytest.raises(BudgetInfeasible) as caught:
        compiling(Budget(size_bytes=100), plan=plan, out=tmp_path / "other")
    assert caught.value.result.binding == "size_bytes"
    assert not (tmp_path / "other").exists()


def test_nothing_fits_and_nothing_is_written(compiling: Compile, tmp_path: Path) -> None:
    with pytest.raises(BudgetInfeasible, match="size_bytes") as caught:
        compiling(Budget(size_bytes=100, max_drop=0.5))
    assert not (tmp_path / "results").exists()
    problem = caught.value
    assert problem.exit_code == 3
    result = problem.result
    assert (result.status, result.artifact, result.files) == ("infeasible", None, ())
    assert result.binding == "size_bytes"
    answer = result.to_json()
    rows = {row["figure"]: row for row in answer["feasibility"]}
    assert not rows["size_bytes"]["reachable"]
    assert rows["accuracy_drop"]["reachable"]
    assert rows["size_bytes"]["smallest"] > 100
    assert answer["option"] == rows["size_bytes"]["smallest_option"]
    assert str(problem.next_step).startswith("loosen size_bytes")


def test_a_drop_that_nothing_reaches_is_told_apart(compiling: Compile, tmp_path: Path) -> None:
    # Better than the original by five points: the metric has no room for that.
    with pytest.raises(BudgetInfeasible, match="accuracy_drop") as caught:
        compiling(Budget(size_bytes=Relative(fraction=0.7), max_drop=-0.05))
    reachable = {row.figure: row.reachable for row in caught.value.result.feasibility}
    assert reachable == {"size_bytes": True, "accuracy_drop": False}
    assert str(caught.value.next_step).startswith("loosen accuracy_drop")
    assert not (tmp_path / "results").exists()


def test_without_any_limit_the_result_is_within_one_point(compiling: Compile) -> None:
    result = compiling()
    assert result.status == "ok"
    assert result.verified["accuracy_drop"].value <= 0.01
    assert "fastest" in " ".join(result.plan.reasons)


def test_an_output_that_exists_is_said_before_any_work(compiling: Compile, tmp_path: Path) -> None:
    out = tmp_path / "results" / "out"
    out.mkdir(parents=True)
    (out / "precious").write_text("mine")
    steps = Steps()
    with pytest.raises(OutputError):
        compiling(HALF, progress=steps)
    assert steps.names == []
    assert (out / "precious").read_text() == "mine"


def test_an_interruption_anywhere_leaves_nothing_and_goes_on_where_it_was(
    compiling: Compile, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    seen: list[str] = []
    while True:
        steps = Steps(known=seen)
        try:
            result = compiling(SMALL, cache=cache, progress=steps)
            break
        except KeyboardInterrupt:
            seen.append(steps.names[-1])
            assert not (tmp_path / "results").exists()
    assert result.status == "ok"
    assert len(seen) >= 6
    assert verify_artifact(tmp_path / "results" / "out").status == "verified"
    assert any("Recovering" in name for name in seen)
    # Only what never finished was begun again.
    assert sum("Measuring sensitivity" in name for name in steps.names) == 0


def test_a_full_disk_at_the_end_leaves_nothing_and_keeps_the_work(
    compiling: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(runnable.shutil, "copyfile", full)
        with pytest.raises(OutputError, match="No space left"):
            compiling(HALF)
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr(learning, "measure_sensitivity", never)
    assert compiling(HALF).status == "ok"


def swap_weights(model: torch.nn.Module) -> None:
    with torch.no_grad():
        last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
        last.weight.copy_(last.weight.roll(1, dims=0))


@pytest.mark.parametrize("reads_back", [True, False], ids=["read back", "run"])
def test_a_file_that_computes_something_else_is_never_kept(
    compiling: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_back: bool
) -> None:
    target = type(find_target("numpy"))
    emit = target.emit

    def wrong(self: Any, model: Any, runtime: Any, folder: Path) -> Any:
        changed = replace(model, module=blobs().model.eval())
        swap_weights(changed.module)
        return emit(self, changed, runtime, folder)

    monkeypatch.setattr(target, "emit", wrong)
    if not reads_back:
        monkeypatch.setattr(target, "checks", lambda *_: ())
    with pytest.raises(ParityError, match="weights" if reads_back else "does not follow") as caught:
        compiling(HALF, cache=tmp_path / "cache")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "results").exists()


def test_a_target_that_writes_nothing_is_found_out(
    compiling: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = type(find_target("numpy"))
    emit = target.emit

    def forgetful(self: Any, model: Any, runtime: Any, folder: Path) -> Any:
        emission = emit(self, model, runtime, folder)
        (folder / MODEL).unlink()
        return emission

    monkeypatch.setattr(target, "emit", forgetful)
    with pytest.raises(OutputError, match=MODEL):
        compiling(HALF, cache=tmp_path / "cache")
    assert not (tmp_path / "results").exists()


def without(task: Task, *fields: str) -> Task:
    return replace(task, **dict.fromkeys(fields))


def test_without_evaluate_accuracy_is_not_known(compiling: Compile, tmp_path: Path) -> None:
    result = compiling(HALF, task=without(blobs(), "evaluate"))
    assert "accuracy" not in result.verified
    assert result.to_json()["verified"]["accuracy"] is None
    with pytest.raises(UsageError, match="evaluate"):
        compiling(SMALL, task=without(blobs(), "evaluate"), out=tmp_path / "other")


def test_without_training_data_pruning_is_not_recovered(compiling: Compile) -> None:
    budget = Budget(size_bytes=Relative(fraction=0.45), max_drop=0.05)
    result = compiling(budget, task=without(blobs(), "training"))
    assert [type(step) for step in result.plan.steps] == [Prune, Quantize]
    assert result.verified["accuracy_drop"].value <= 0.05


def test_without_any_data_only_bytes_are_promised(compiling: Compile) -> None:
    task = without(blobs(), "evaluate", "training", "calibration")
    result = compiling(HALF, task=task)
    assert result.verified["size_bytes"].standing == "verified"
    assert "accuracy" not in result.verified


def test_on_this_machine_latency_is_measured(
    compiling: Compile,
    reference_device: DeviceProfile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "_ROUND_MS", 2.0)
    monkeypatch.setattr(timing, "_WARMUP_MS", 5.0)
    host = replace(reference_device, name="host")
    result = compiling(Budget(latency_ms=1000), device=host, task=without(blobs(), "evaluate"))
    assert result.measured["latency_ms"].standing == "measured"
    assert result.baseline["latency_ms"].standing == "measured"
    [verdict] = result.verdicts
    assert verdict.figure == result.measured["latency_ms"]
    measurement = read_manifest(tmp_path / "results" / "out").measurement
    assert measurement is not None
    assert measurement.p50_ms == result.measured["latency_ms"].value
    assert measurement.artifact_sha256 == sha256_of(tmp_path / "results" / "out" / MODEL)
    # Nobody measured the reference device itself, so nothing is claimed of it.
    elsewhere = compiling(HALF, out=tmp_path / "elsewhere")
    assert elsewhere.measured == {}
    assert elsewhere.to_json()["measured"]["latency_ms"] is None


def test_planning_decides_and_changes_nothing(
    reference_device: DeviceProfile, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = type(find_target("numpy"))
    chain = find_target("numpy").toolchain()
    missing = tuple(replace(package, found=None) for package in chain.packages)
    monkeypatch.setattr(target, "toolchain", lambda _: replace(chain, packages=missing))
    monkeypatch.setattr(target, "emit", never)
    monkeypatch.setattr(compression, "recover", never)
    result = edgesdk.make_plan(
        blobs(), device=reference_device, budget=Budget(size_bytes=9_000), cache=shared_cache
    )
    assert (result.status, result.artifact, result.verified) == ("ok", None, {})
    assert [type(step) for step in result.plan.steps] == [Prune, Distil, Quantize]
    assert all(figure.standing == "predicted" for figure in result.predicted.values())
    assert to_json(result.plan) == to_json(result.plan)
    with pytest.raises(TargetUnavailable, match="pip install edgesdk-numpy") as caught:
        edgesdk.compile(blobs(), device=reference_device, out="never", cache=shared_cache)
    assert caught.value.exit_code == 5


def test_the_answer_has_the_documented_keys_and_plain_numbers(compiling: Compile) -> None:
    answer = compiling(HALF).to_json()
    assert {
        "status", "device", "target", "artifact", "files", "plan", "baseline", "predicted",
        "verified", "measured", "budget",
    } <= set(answer)  # fmt: skip
    names = {"latency_ms", "size_bytes", "memory_bytes", "accuracy", "accuracy_drop"}
    for section in ("baseline", "predicted", "verified", "measured"):
        assert names <= set(answer[section])
        for name in names:
            assert answer[section][name] is None or isinstance(answer[section][name], float)
    assert set(answer["predicted"]["interval"]) >= {"latency_ms", "size_bytes"}
    [judged] = answer["budget"]
    assert judged["met"] is True
    assert judged["figure"]["standing"] == "verified"


def test_a_damaged_cache_is_no_obstacle(compiling: Compile, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = compiling(HALF, cache=cache)
    damaged = [path for path in cache.rglob("*") if path.is_file() and path.name != "seal.json"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])
    again = compiling(HALF, cache=cache, out=tmp_path / "again")
    assert to_builtins(again.plan) == to_builtins(first.plan)
    assert sha256_of(again.artifact / MODEL) == sha256_of(first.artifact / MODEL)  # type: ignore[operator]
    shutil.rmtree(cache)
