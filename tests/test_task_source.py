"""Loading, hashing and checking tasks, and the message for each way they can be wrong."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgesdk.errors import TaskError, UsageError
from edgesdk.task import Batch, InputSpec, OutputSpec, Task, Tensors
from edgesdk.task_source import (
    calibration_batches,
    check_task,
    input_specs,
    load_task,
    output_specs,
    task_key,
    training_batches,
)

GOOD = """
    import torch
    from edgesdk.task import Task

    def good():
        return Task(name="good", model=torch.nn.Linear(3, 2), example_inputs=(torch.zeros(1, 3),))
"""


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the import path and the loaded modules back, which loading a task changes."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if "pytest-of" in file:
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "my_task.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def task() -> Task:
    torch.manual_seed(0)
    return replace(make_task(), version="1")


def make_task() -> Task:
    torch.manual_seed(0)
    return Task(name="t", model=nn.Linear(3, 2), example_inputs=(torch.zeros(1, 3),))


# Loading


def test_a_function_in_a_file(write: Callable[..., Path]) -> None:
    path = write(GOOD)
    task = load_task(f"{path}:good")
    assert task.name == "good"
    assert task.source == path.read_text()


def test_a_relative_path_and_a_module_in_the_current_folder(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(GOOD, "sub/nested.py")
    monkeypatch.chdir(path.parents[1])
    assert load_task("sub/nested.py:good").name == "good"
    assert load_task("sub.nested:good").source == path.read_text()
    monkeypatch.chdir(path.parent)
    assert load_task("nested.py:good").name == "good"


def test_a_file_imports_its_neighbours_even_while_it_trains(write: Callable[..., Path]) -> None:
    write("WIDTH = 3", "neighbour_of_task.py")
    write("from edgesdk.task import Batch\nimport torch", "late_neighbour.py")
    path = write(GOOD.replace("import torch", "import torch, neighbour_of_task", 1))
    assert load_task(f"{path}:good").name == "good"
    __import__("late_neighbour")


def test_two_files_of_one_name_are_two_modules(write: Callable[..., Path]) -> None:
    first = write(GOOD, "a/task.py")
    second = write(GOOD.replace('"good"', '"other"'), "b/task.py")
    assert [load_task(f"{path}:good").name for path in (first, second)] == ["good", "other"]


def test_source_given_by_the_task_is_kept(write: Callable[..., Path]) -> None:
    path = write(GOOD.replace('name="good"', 'name="good", source="and model.py"'))
    assert load_task(f"{path}:good").source == path.read_text() + "and model.py"


@pytest.mark.parametrize(
    "reference", ["", "nothing", ":f", "file.py:", "file.py:not a name", "a:1"]
)
def test_a_malformed_reference_is_a_usage_error(reference: str) -> None:
    with pytest.raises(UsageError, match=r"does not name a task.*package\.module:function"):
        load_task(reference)


def test_an_unknown_demo_suggests_the_near_one() -> None:
    with pytest.raises(UsageError, match="unknown demo 'digit'; did you mean 'digits'"):
        load_task("demo:digit")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def gold(): pass\ndef other(): pass", r"has no function 'good'.*did you mean gold"),
        ("def zzz(): pass", r"has no function 'good'.*it has zzz"),
        ("good = 3", "'good' in .* is a int"),
        ("class good: pass", "'good' in .* is a type"),
        ("def good(model, data=1): pass", "'good' in .* needs the arguments model"),
        ("def good(): return 3", "returned a int. Expected: an edgesdk Task"),
        ("import torch\ndef good(): return torch.nn.Linear(1, 1)", "returned a Linear"),
        ("def good():\n    return 1 / 0", r"raised ZeroDivisionError: .*my_task\.py, line 2\)"),
        ("import sys\nsys.exit(3)", r"raised SystemExit: 3 \(.*my_task\.py, line 2\)"),
        ("import no_such_thing", r"raised ModuleNotFoundError.*my_task\.py, line 1\)"),
        ("\n\ndef good(:\n", r"raised SyntaxError.*my_task\.py, line 3\)"),
    ],
)
def test_a_task_file_that_is_wrong(write: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        load_task(f"{write(text)}:good")
    assert caught.value.exit_code == 10


def test_the_line_is_the_users_even_when_a_library_raises(write: Callable[..., Path]) -> None:
    text = "import json\ndef good():\n    helper()\ndef helper():\n    json.loads('{')\n"
    with pytest.raises(TaskError, match=r"JSONDecodeError.*my_task\.py, line 5\)"):
        load_task(f"{write(text)}:good")


def test_a_file_or_module_that_is_not_there(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(GOOD)
    with pytest.raises(TaskError, match=r"my_tsk\.py does not exist.*did you mean .*my_task\.py"):
        load_task(f"{path.with_name('my_tsk.py')}:good")
    with pytest.raises(TaskError, match="does not exist"):
        load_task("no/such/folder/file.py:good")
    monkeypatch.chdir(path.parent)
    with pytest.raises(TaskError, match="there is no module 'my_tsk'"):
        load_task("my_tsk:good")
    with pytest.raises(TaskError, match=r"there is no module 'my_task\.sub'"):
        load_task("my_task.sub:good")
    write("import no_such_thing", "importer.py")
    with pytest.raises(TaskError, match="importing importer raised ModuleNotFoundError"):
        load_task("importer:good")


def test_nan_weights_are_a_task_error(write: Callable[..., Path]) -> None:
    text = GOOD.replace(
        "return", "m = torch.nn.Linear(3, 2); m.bias.data[0] = float('nan')\n        return"
    )
    with pytest.raises(TaskError, match="weights 'bias' contain NaN"):
        load_task(f"{write(text.replace('model=torch.nn.Linear(3, 2)', 'model=m'))}:good")


# The key


def test_key_covers_what_a_result_depends_on(task: Task) -> None:
    moved = nn.Linear(3, 2)
    moved.load_state_dict(task.model.state_dict())
    assert task_key(replace(task, model=moved)) == task_key(task)
    moved.weight.data[0, 0] += 1e-6
    keys = {
        task_key(changed)
        for changed in (
            task,
            replace(task, model=moved),
            replace(task, model=nn.Linear(3, 2, bias=False)),
            replace(task, example_inputs=(torch.zeros(2, 3),)),
            replace(task, example_inputs=(torch.zeros(1, 3, dtype=torch.float64),)),
            replace(task, source="x"),
            replace(task, version="2"),
            replace(task, seed=1),
        )
    }
    assert len(keys) == 8
    assert task_key(replace(task, example_inputs=(torch.ones(1, 3),))) == task_key(task)


def test_key_takes_any_kind_of_tensor(task: Task) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scalar", torch.tensor(True))
            self.register_buffer("sixteen", torch.ones(2, 3, dtype=torch.bfloat16).t())
            self.register_buffer("unsaved", torch.zeros(0), persistent=False)

    first, second = Odd(), Odd()
    assert task_key(replace(task, model=first)) == task_key(replace(task, model=second))
    second.sixteen[0, 0] = 2
    assert task_key(replace(task, model=first)) != task_key(replace(task, model=second))


# Specs


def test_default_names(task: Task) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensors:
            return x + y, x - y

    assert input_specs(task) == (InputSpec(name="input"),)
    assert output_specs(task) == (OutputSpec(name="output"),)
    two = replace(task, model=Two(), example_inputs=(torch.zeros(1, 3), torch.zeros(1, 3)))
    assert [spec.name for spec in input_specs(two)] == ["input_0", "input_1"]
    assert [spec.name for spec in output_specs(two)] == ["output_0", "output_1"]


def test_specs_that_do_not_fit(task: Task) -> None:
    pair = (InputSpec(name="a"), InputSpec(name="b"))
    with pytest.raises(TaskError, match=r"gives inputs named \['a', 'b'\], and the model has 1"):
        input_specs(replace(task, inputs=pair))
    outputs = (OutputSpec(name="a"), OutputSpec(name="a"))
    with pytest.raises(TaskError, match="gives outputs named"):
        output_specs(replace(task, outputs=outputs))
    labelled = (OutputSpec(name="a", kind="logits", labels=("x", "y", "z")),)
    with pytest.raises(TaskError, match=r"3 labels and the shape \[1, 2\]"):
        output_specs(replace(task, outputs=labelled))


# The check


def items(*values: object) -> Callable[[], Iterator[object]]:
    """Yield the values, then fail: a check must not consume more than the first."""

    def source() -> Iterator[object]:
        yield from values
        raise AssertionError("more than the first item was taken")

    return source


X, Y = torch.zeros(5, 3), torch.zeros(5).long()


def test_a_sound_task_passes_on_its_first_batches(task: Task) -> None:
    batch = Batch(inputs=(X,), targets=Y)
    check_task(replace(task, calibration=items((X,)), training=items(batch)))  # type: ignore[arg-type]
    check_task(task)
    assert list(calibration_batches(task)) == list(training_batches(task)) == []


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ((torch.zeros(1, 4),), r"sample 0 has the inputs \[1, 4\].*\[N, 3\] torch\.float32"),
        ((X, X), r"has the inputs \[5, 3\] torch\.float32, \[5, 3\]"),
        ((), "has the inputs none"),
        ((X.double(),), "float64"),
        ((torch.tensor(1.0),), r"has the inputs \[\]"),
        (X, r"inputs of type Tensor.*a tuple of tensors"),
        ((X.numpy(),), "inputs of type tuple"),
        ((X / 0,), "sample 0 contains NaN"),
    ],
)
def test_calibration_that_does_not_fit(task: Task, sample: object, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check_task(replace(task, calibration=items(sample)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, Y), r"training batch 0 is a tuple.*Batch\(inputs="),
        (Batch(inputs=(X[:, :2],), targets=Y), r"\[5, 2\]"),
        (Batch(inputs=(X,), targets=Y[:4]), r"has 5 samples and targets of \[4\]"),
        (Batch(inputs=(X,), targets=torch.tensor(1)), r"targets of \[\]"),
        (Batch(inputs=(X,), targets=[1]), "targets of list"),  # type: ignore[arg-type]
        (Batch(inputs=(X,), targets=Y / 0), "training batch 0 contains NaN"),
    ],
)
def test_training_that_does_not_fit(task: Task, batch: object, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check_task(replace(task, training=items(batch)))  # type: ignore[arg-type]


def test_data_that_raises_is_empty_or_cannot_be_iterated(task: Task) -> None:
    def broken() -> Iterator[Tensors]:
        raise FileNotFoundError("photos.npz")
        yield

    with pytest.raises(TaskError, match=r"calibration\(\) raised FileNotFoundError: photos"):
        check_task(replace(task, calibration=broken))
    with pytest.raises(TaskError, match=r"training\(\) yielded nothing"):
        check_task(replace(task, training=lambda: []))
    with pytest.raises(TaskError, match=r"training\(\) raised TypeError"):
        check_task(replace(task, training=lambda: None))  # type: ignore[arg-type, return-value]


class Returns(nn.Module):
    """A model that gives what it is told to, computed from its input."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: {"logits": x}, "returned a dict.*wrap the model"),
        (lambda x: (x, None), "returned a tuple"),
        (lambda x: x.sum(), r"returned the shape \[\] for a batch of 1"),
        (lambda x: torch.cat([x, x]), r"returned the shape \[2, 3\] for a batch of 1"),
        (lambda x: x / 0, "returned NaN or infinity"),
        (lambda x: x @ x, "the model on its example inputs raised RuntimeError"),
    ],
)
def test_a_model_whose_outputs_cannot_be_used(
    task: Task, function: Callable[[Tensor], object], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        check_task(replace(task, model=Returns(function)))


def test_tasks_made_in_python_share_no_results() -> None:
    """Two objects may score differently and look alike; only a version says they are the same."""
    assert task_key(make_task()) != task_key(make_task())
    anonymous = make_task()
    assert task_key(anonymous) == task_key(anonymous)
    first, second = replace(anonymous, version="1"), replace(anonymous, version="1")
    assert task_key(first) == task_key(second)
