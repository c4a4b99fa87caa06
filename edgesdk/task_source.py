"""Where a task comes from: a reference on the command line to a loaded Task."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from edgesdk.errors import TaskError, UsageError, near_names, unknown_name
from edgesdk.task import Task
from edgesdk.user_code import user_code

_FORMS = (
    "demo:NAME, path/to/file.py:function, package.module:function, FILE.pt2, FILE.keras, a "
    "SavedModel folder, a Hugging Face model folder or timm:NAME"
)
_FUNCTION = "a function without arguments that returns a Task"


def load_task(reference: str, *, allow_pickle: bool = False) -> Task:
    """Return the task a reference names, its ``source`` extended by the text of its file.

    ``demo:NAME`` is a built-in, ``path/to/file.py:function`` and ``package.module:function`` call
    a function without arguments that returns a Task. The file's folder (for a module: the
    current folder) comes first on ``sys.path``, as when Python runs a script.

    ``FILE.pt2``, ``FILE.keras``, a SavedModel folder, a folder of Hugging Face's, ``random:FOLDER``
    and ``timm:NAME`` give a model and no data: see ``edgesdk.sources``. ``allow_pickle`` also takes
    weights that are pickles.

    Raises ``UsageError`` for a malformed reference or an unknown demo, ``TaskError`` for anything
    wrong with the user's code: not found, raises, or returns something else.
    """
    saved = _without_code(reference, allow_pickle=allow_pickle)
    if saved is not None:
        return replace(saved, reference=reference)
    where, _, name = reference.rpartition(":")
    if not (where and name):
        raise UsageError(f"{reference!r} does not name a task", expected=_FORMS)
    if where == "demo":
        return _call(_find_demo(name), reference)
    if not name.isidentifier():
        found = f"{reference!r} does not name a task: {name!r} cannot be a function's name"
        raise UsageError(found, expected=_FORMS)
    is_file = where.endswith(".py") or "/" in where or os.sep in where
    module = _load_file(Path(where)) if is_file else _load_module(where)
    return _call(_find_function(module, name, where), reference)


def _without_code(reference: str, *, allow_pickle: bool) -> Task | None:
    """Return the task of a saved model, None where the reference names a Python function."""
    if reference.startswith("timm:"):
        from edgesdk.sources.timm import load_timm

        return load_timm(reference.removeprefix("timm:"))
    path = Path(reference.removeprefix("random:"))
    if is_keras(reference):
        from edgesdk.sources.keras import load_keras

        return load_keras(path)
    if (reference and path.is_dir()) or path.name == "config.json":
        from edgesdk.sources.huggingface import load_huggingface

        random = reference.startswith("random:")
        return load_huggingface(path, random=random, allow_pickle=allow_pickle)
    if reference.startswith("random:"):
        raise TaskError(
            f"{reference} is no model folder",
            expected="random: and a Hugging Face folder or its config.json",
        )
    if reference.endswith(".pt2"):
        from edgesdk.sources.pt2 import load_pt2

        return load_pt2(path)
    return None


def is_keras(reference: str) -> bool:
    """Return whether a reference names a file of Keras' or a SavedModel's folder."""
    path = Path(reference)
    return path.suffix.lower() in (".keras", ".h5", ".hdf5") or (path / "saved_model.pb").is_file()


def _find_demo(name: str) -> Callable[[], Task]:
    from edgesdk.demo import DEMOS, demo_names

    if name not in DEMOS:
        listing = f"known: {', '.join(demo_names())}"
        raise UsageError(unknown_name("demo", name, demo_names(), listing=listing))
    return DEMOS[name]


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        siblings = sorted(p.name for p in path.parent.glob("*.py"))
        near = [str(path.parent / sibling) for sibling in near_names(path.name, siblings)]
        raise TaskError(
            f"the task file {path} does not exist",
            expected="a Python file with a function that returns a Task",
            next_step=f"did you mean {' or '.join(near)}?" if near else None,
        )
    path = path.resolve()
    # A name of its own keeps two files called task.py apart.
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} cannot be imported as Python", expected="a file ending in .py")
    _put_first(path.parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their class's module there
    try:
        with user_code(f"importing {path}", file=path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _load_module(name: str) -> ModuleType:
    _put_first(Path.cwd())
    try:
        with user_code(f"importing {name}"):
            return importlib.import_module(name)
    except TaskError as problem:
        missing = problem.__cause__
        prefixes = {name.rsplit(".", cut)[0] for cut in range(name.count(".") + 1)}
        if isinstance(missing, ModuleNotFoundError) and missing.name in prefixes:
            raise TaskError(
                f"there is no module {missing.name!r} to load the task from",
                expected="an installed module, or one in the current folder",
                next_step=f"check the spelling; a task is named by {_FORMS}",
            ) from None
        raise


def _put_first(folder: Path) -> None:
    """Put a folder in front of the import path, for good: training() may import later."""
    text = str(folder)
    if text in sys.path:
        sys.path.remove(text)
    sys.path.insert(0, text)


def _find_function(module: ModuleType, name: str, where: str) -> Callable[[], Task]:
    function = getattr(module, name, None)
    if function is None:
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        near = near_names(name, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
        raise TaskError(
            f"{where} has no function {name!r}",
            expected=_FUNCTION,
            next_step=hint if known else None,
        )
    if not inspect.isfunction(inspect.unwrap(function)):
        raise TaskError(f"{name!r} in {where} is a {type(function).__name__}", expected=_FUNCTION)
    required = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        found = f"{name!r} in {where} needs the arguments {', '.join(required)}"
        raise TaskError(found, expected=_FUNCTION)
    found_function: Callable[[], Task] = function
    return found_function


def _call(function: Callable[[], Task], reference: str) -> Task:
    path = Path(inspect.unwrap(function).__code__.co_filename)
    with user_code(reference, file=path):
        task = function()
    if not isinstance(task, Task):
        raise TaskError(
            f"{reference} returned a {type(task).__name__}",
            expected="an edgesdk Task",
            next_step="end the function with: return Task(name=..., model=..., example_inputs=...)",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise TaskError(
            f"the source of {reference} cannot be read, and cache keys cover it: {problem}"
        ) from None
    return replace(task, source=text + task.source, reference=reference)
