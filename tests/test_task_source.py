"""Loading, hashing and checking tasks, and the message for each way they can be wrong."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgesdk.errors import TaskError, UsageError
from edgesdk.task_source import load_task

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
