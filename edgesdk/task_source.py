"""Where a task comes from: a reference on the command line to a loaded, hashed, checked Task."""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from edgesdk.errors import TaskError, UsageError, near_names, unknown_name
from edgesdk.task import Batch, InputSpec, OutputSpec, Task, Tensors, output_tensors
from edgesdk.user_code import user_code

_Item = TypeVar("_Item")

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


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    named: dict[str, Tensor] = dict([*model.named_parameters(), *model.named_buffers()])
    for name in sorted(named):
        tensor = named[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# Nobody can tell whether the functions of a Task made in Python are those of an earlier run.
_ANONYMOUS: WeakKeyDictionary[Task, bytes] = WeakKeyDictionary()


def task_key(task: Task) -> str:
    """Return the SHA-256 that stands for a task in cache keys and plans.

    It covers the weights, the shapes and types of the example inputs, the task's source,
    ``version`` and ``seed``. Code and data outside the task's own file are for ``version`` to say.
    A task with neither source nor version has a key of its own, the same only for this object.
    """
    digest = hashlib.sha256()
    if not task.source and not task.version:
        digest.update(_ANONYMOUS.setdefault(task, uuid.uuid4().bytes))
    examples = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in task.example_inputs]
    callables = ("calibration", "training", "loss", "evaluate", "finetune")
    given = [name for name in callables if getattr(task, name) is not None]
    for part in (weights_sha256(task.model), examples, task.source, task.version, task.seed, given):
        digest.update(repr(part).encode() + b"\0")
    return digest.hexdigest()


def input_specs(task: Task) -> tuple[InputSpec, ...]:
    """Return one InputSpec per example input; ``input`` or ``input_0``, ... where none is given.

    Raises ``TaskError`` when the task gives another number of specs, or names that repeat.
    """
    if not task.inputs:
        names = _default_names("input", len(task.example_inputs))
        return tuple(InputSpec(name=name) for name in names)
    _check_specs(task, "inputs", [spec.name for spec in task.inputs], len(task.example_inputs))
    return task.inputs


def output_specs(task: Task) -> tuple[OutputSpec, ...]:
    """Return one OutputSpec per output; ``output`` or ``output_0``, ... where none is given.

    Runs the model once on its example inputs. Raises ``TaskError`` when the task gives another
    number of specs, names that repeat, or labels that no dimension of the output has room for.
    """
    outputs = example_outputs(task)
    if not task.outputs:
        names = _default_names("output", len(outputs))
        return tuple(OutputSpec(name=name) for name in names)
    _check_specs(task, "outputs", [spec.name for spec in task.outputs], len(outputs))
    for spec, output in zip(task.outputs, outputs, strict=True):
        if spec.labels and len(spec.labels) not in output.shape[1:]:
            raise TaskError(
                f"task {task.name!r}: output {spec.name!r} has {len(spec.labels)} labels and the "
                f"shape {list(output.shape)}",
                expected="as many labels as the output has classes",
            )
    return task.outputs


def _default_names(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind}_{index}" for index in range(count)]


def _check_specs(task: Task, field: str, names: list[str], count: int) -> None:
    if len(names) != count or len(set(names)) != count or not all(names):
        raise TaskError(
            f"task {task.name!r} gives {field} named {names}, and the model has {count}",
            expected=f"one spec per tensor in {field}, each with a name of its own",
        )


def example_outputs(task: Task) -> Tensors:
    """Return the model's outputs on the example inputs, computed by a copy in eval mode.

    Raises ``TaskError`` if the model raises, or returns anything but finite tensors whose first
    dimension is the batch.
    """
    model = copy.deepcopy(task.model).cpu().eval()
    what = f"task {task.name!r}: the model on its example inputs"
    with torch.no_grad(), user_code(what):
        returned = model(*(example.cpu() for example in task.example_inputs))
    return check_outputs(returned, task.batch_size, what)


def check_outputs(returned: Any, batch_size: int, what: str) -> Tensors:
    """Return a model's outputs as a tuple; ``TaskError`` for what is not ``[N, ...]`` and finite.

    ``what`` begins the message: which model, on what.
    """
    if not isinstance(returned, Tensor) and not (
        isinstance(returned, tuple | list) and all(isinstance(item, Tensor) for item in returned)
    ):
        raise TaskError(
            f"{what} returned a {type(returned).__name__}",
            expected="a tensor or a tuple of tensors",
            next_step="wrap the model in a module whose forward returns tensors",
        )
    outputs = output_tensors(returned if isinstance(returned, Tensor) else tuple(returned))
    for output in outputs:
        if output.dim() == 0 or output.shape[0] != batch_size:
            raise TaskError(
                f"{what} returned the shape {list(output.shape)} for a batch of {batch_size}",
                expected="outputs whose first dimension is the batch",
            )
        if not _is_finite(output):
            raise TaskError(f"{what} returned NaN or infinity", expected="finite outputs")
    return outputs


def calibration_batches(task: Task) -> Iterator[Tensors]:
    """Yield the task's calibration inputs, each tuple checked; none where the task has none.

    Raises ``TaskError`` for a tuple of the wrong count, shape or type, for values that are not
    finite, and for whatever ``calibration`` raises.
    """
    for index, inputs in enumerate(_items(task, "calibration")):
        what = f"task {task.name!r}: calibration sample {index}"
        checked = _check_inputs(task, inputs, what)
        if not all(_is_finite(tensor) for tensor in checked):
            raise TaskError(f"{what} contains NaN or infinity", expected="finite inputs")
        yield checked


def training_batches(task: Task) -> Iterator[Batch]:
    """Yield one epoch of the task's training batches, each checked; none where the task has none.

    Raises ``TaskError`` for anything that is not a ``Batch`` of the right count, shapes and types,
    and for whatever ``training`` raises.
    """
    for index, batch in enumerate(_items(task, "training")):
        what = f"task {task.name!r}: training batch {index}"
        if not isinstance(batch, Batch):
            raise TaskError(
                f"{what} is a {type(batch).__name__}",
                expected="edgesdk.task.Batch(inputs=(x,), targets=y)",
            )
        inputs = _check_inputs(task, batch.inputs, what)
        targets = batch.targets
        if targets is not None and (
            not isinstance(targets, Tensor) or targets.shape[:1] != inputs[0].shape[:1]
        ):
            shape = list(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise TaskError(
                f"{what} has {inputs[0].shape[0]} samples and targets of {shape}",
                expected="a tensor of targets whose first dimension is the batch",
            )
        yield Batch(inputs=inputs, targets=targets)


def check_task(task: Task) -> None:
    """Raise ``TaskError`` for what would go wrong later: outputs, specs, the first data batches.

    Runs the model once and takes only the first item of ``calibration`` and ``training``.
    """
    _check_floats(task)
    input_specs(task)
    output_specs(task)
    if task.calibration is not None:
        _first(calibration_batches(task), f"task {task.name!r}: calibration()")
    if task.training is not None:
        batch = _first(training_batches(task), f"task {task.name!r}: training()")
        check_finite(batch, f"task {task.name!r}: training batch 0")


def _check_floats(task: Task) -> None:
    """Raise ``TaskError`` for weights and inputs of 16 bits: files are derived from float32."""
    weights = [*task.model.named_parameters(), *task.model.named_buffers()]
    inputs = [
        (f"example input {place}", tensor) for place, tensor in enumerate(task.example_inputs)
    ]
    halves = [
        (name, t) for name, t in (*weights, *inputs) if t.dtype in (torch.float16, torch.bfloat16)
    ]
    if halves:
        name, tensor = halves[0]
        more = f" and {len(halves) - 1} more" if len(halves) > 1 else ""
        raise TaskError(
            f"task {task.name!r}: {name}{more} of type {tensor.dtype}",
            expected="float32; what the file computes in is decided for the device",
            next_step="use model.float() and float32 inputs in the task",
        )


def check_finite(batch: Batch, what: str) -> None:
    """Raise ``TaskError``, beginning with ``what``, if a training batch holds NaN or infinity."""
    targets = () if batch.targets is None else (batch.targets,)
    if not all(_is_finite(tensor) for tensor in (*batch.inputs, *targets)):
        raise TaskError(f"{what} contains NaN or infinity", expected="finite inputs and targets")


def _first(items: Iterator[_Item], what: str) -> _Item:
    for item in items:
        return item
    expected = "a new iterable with at least one item at every call"
    raise TaskError(f"{what} yielded nothing", expected=expected)


def _items(task: Task, field: str) -> Iterator[Any]:
    """Yield what ``task.calibration()`` or ``task.training()`` yields, its errors as TaskErrors."""
    what = f"task {task.name!r}: {field}()"
    source = getattr(task, field)
    if source is None:
        return
    with user_code(what):
        iterator = iter(source())
    end = object()
    while True:
        with user_code(what):
            item = next(iterator, end)
        if item is end:
            return
        yield item


def _check_inputs(task: Task, inputs: Any, what: str) -> Tensors:
    expected = [(list(t.shape[1:]), t.dtype) for t in task.example_inputs]
    wanted = ", ".join(f"{['N', *shape]} {dtype}" for shape, dtype in expected).replace("'N'", "N")
    if not isinstance(inputs, tuple | list) or not all(isinstance(t, Tensor) for t in inputs):
        raise TaskError(
            f"{what} has inputs of type {type(inputs).__name__}",
            expected=f"a tuple of tensors like the example inputs: {wanted}",
        )
    found = [(list(tensor.shape[1:]), tensor.dtype) for tensor in inputs]
    batches = {tuple(tensor.shape[:1]) for tensor in inputs}
    if found != expected or len(batches) != 1 or () in batches:
        shapes = ", ".join(f"{list(tensor.shape)} {tensor.dtype}" for tensor in inputs)
        raise TaskError(
            f"{what} has the inputs {shapes or 'none'}",
            expected=f"tensors like the example inputs, of any batch size N: {wanted}",
        )
    return tuple(inputs)


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
