"""``.pt2``: a program that ``torch.export.save`` wrote, loaded without running what it may hide.

``torch.export.load`` unpickles whatever the archive says is pickled, loads native libraries, looks
up operators by name in all of torch and evaluates the text of symbolic sizes. An archive is
therefore read first, as the JSON and the tensors it should be, and refused where it holds more.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgesdk.errors import TaskError, first_line
from edgesdk.task import Task, Tensors

_LARGEST_BYTES = 8 * 2**30
_LARGEST_JSON_BYTES = 256 * 2**20
# aten.from_file would map any file of the user's, for writing too.
_OPERATOR = re.compile(
    r"(torch\.ops\.(aten\.(?!from_file\.)|quantized_decomposed\.)\w+\.\w+|_operator\.getitem)"
)
_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict", None)
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_SYMBOLIC = {"as_expr", "expr_str", "as_sym_int", "as_sym_float", "as_sym_bool"}
_TRAINS = ("aten.dropout", "aten.native_dropout", "aten.batch_norm")


def load_pt2(path: Path) -> Task:
    """Return a task with the model of a ``.pt2``, its example inputs, and nothing else.

    Raises ``TaskError`` for a file that is missing, no archive of ``torch.export.save``, made by
    another version of torch, exported in training mode or with open sizes, and for one that holds
    pickled objects, compiled code or calls of anything but tensor operators.
    """
    if not path.is_file():
        raise TaskError(f"{path} does not exist", expected="a file of torch.export.save")
    if path.stat().st_size > _LARGEST_BYTES:
        raise _refused(path, f"has {path.stat().st_size} bytes")
    data = path.read_bytes()
    _check_archive(path, data)
    try:
        program = torch.export.load(io.BytesIO(data))
    except Exception as problem:
        raise TaskError(
            f"{path} cannot be loaded by torch {torch.__version__}: {first_line(problem)}",
            next_step="export it again with this version of torch",
        ) from problem
    return Task(
        name=path.stem,
        model=_module(path, program),
        example_inputs=_example_inputs(path, program),
        source=hashlib.sha256(data).hexdigest(),
    )


def _check_archive(path: Path, data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            # torch finds members whatever the case of their letters.
            members = {_inner(info.filename).lower(): info for info in infos}
            folders = {info.filename.partition("/")[0] for info in infos}
            # One folder, each file once: torch reads other layouts by other rules.
            if len(members) != len(infos) or len(folders) != 1 or "" in members:
                raise _refused(path, "is not laid out as torch.export.save does it")
            programs = [name for name in members if name.startswith("models/")]
            if programs != ["models/model.json"]:
                raise _refused(path, "is not one program of torch.export.save")
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise _refused(path, "holds compressed files, which could become any size")
            for name, info in members.items():
                if name.startswith("data/aotinductor/"):
                    raise _refused(path, "holds compiled code, which would be run")
                if name in ("data/weights/model.pt", "data/constants/model.pt"):
                    raise _refused(path, "holds pickled weights of an older torch")
                if name.endswith(".json"):
                    if info.file_size > _LARGEST_JSON_BYTES:
                        raise _refused(path, f"holds {name} of {info.file_size} bytes")
                    _check_json(path, name, json.loads(archive.read(info)))
                if name.startswith("data/sample_inputs/"):
                    _check_inputs(path, archive.read(info))
    except (zipfile.BadZipFile, ValueError, RecursionError, OSError) as problem:
        raise TaskError(
            f"{path} is not an archive of torch.export.save: {problem}",
            expected="a .pt2 file",
        ) from problem


def _inner(name: str) -> str:
    """Return a member's name without the archive's own folder, which can be called anything."""
    return name.partition("/")[2]


def _refused(path: Path, what: str) -> TaskError:
    return TaskError(
        f"{path} {what}",
        expected="a graph of tensor operators, its weights as plain tensors",
        next_step="save it again with torch.export.save, or write a task in Python",
    )


def _check_json(path: Path, name: str, document: Any) -> None:
    """Raise ``TaskError`` for what loading would unpickle, evaluate or look up by name."""
    for key, value in _pairs(document):
        if key == "use_pickle" and value:
            raise _refused(path, f"holds pickled objects ({name})")
        if key == "path_name" and not _PAYLOAD.fullmatch(str(value)):
            raise _refused(path, f"holds {value}, which is no plain tensor")
        if key in ("in_spec", "out_spec") and value:
            _check_containers(path, value)
        if (key in _SYMBOLIC and value is not None) or (key == "range_constraints" and value):
            raise _open_sizes(path, document)
        if key == "target" and name.startswith("models/") and not _is_operator(str(value)):
            raise _refused(path, f"calls {value}, which is no tensor operator")


def _check_containers(path: Path, text: Any) -> None:
    """Raise ``TaskError`` for inputs or outputs in types that loading would import by name."""
    for key, value in _pairs(json.loads(str(text))):
        if key == "type" and value not in _CONTAINERS:
            raise _refused(path, f"takes or gives a {value}, not tuples, lists or dictionaries")


def _open_sizes(path: Path, document: Any) -> TaskError:
    """Return the error for dynamic shapes: which inputs have them, and what they were exported at.

    The document may hold anything at all; what does not look like torch's own is left out.
    """
    try:
        module = document["graph_module"]
        values = module["graph"]["tensor_values"]
        names = [
            str(spec["user_input"]["arg"]["as_tensor"]["name"])
            for spec in module["signature"]["input_specs"]
            if "user_input" in spec
        ]
        told = [_told_sizes(name, values[name]["sizes"]) for name in names]
    except (KeyError, TypeError):
        told = []
    return TaskError(
        f"{path} was exported with dynamic shapes{': ' if any(told) else ''}"
        f"{'; '.join(filter(None, told))}",
        expected="inputs of one shape, as every file that is made here takes",
        next_step="export it without dynamic_shapes, once for each shape that is needed",
    )


def _told_sizes(name: str, sizes: list[dict[str, Any]]) -> str:
    """Return an input with open sizes in words, nothing for one of a fixed shape."""
    symbols = [size["as_expr"]["expr_str"] if "as_expr" in size else None for size in sizes]
    if not any(symbols):
        return ""
    static = [
        size["as_expr"]["hint"]["as_int"] if symbol else size["as_int"]
        for size, symbol in zip(sizes, symbols, strict=True)
    ]
    # torch writes an open size as Symbol('s53', positive=True, integer=True).
    shape = [re.sub(r"Symbol\('(\w+)'[^)]*\)", r"\1", s) if s else fixed
             for s, fixed in zip(symbols, static, strict=True)]  # fmt: skip
    listed = ", ".join(str(size) for size in shape)
    return f"input {name!r} is [{listed}], {static} in the example"


def _is_operator(target: str) -> bool:
    """Return whether a target is an operator; signatures name weights in a field of that name."""
    return _OPERATOR.fullmatch(target) is not None or not target.startswith(
        ("torch", "_operator", "math", "builtins", "#")
    )


def _pairs(document: Any) -> Iterator[tuple[str, Any]]:
    pending = [document]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _check_inputs(path: Path, data: bytes) -> None:
    """Raise ``TaskError`` for example inputs that only a full unpickling could read."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as inner:
            if any(info.compress_type != zipfile.ZIP_STORED for info in inner.infolist()):
                raise _refused(path, "holds compressed inputs, which could become any size")
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as problem:
        raise _refused(path, "has example inputs that are more than tensors") from problem


def _module(path: Path, program: ExportedProgram) -> GraphModule:
    for node in program.graph.nodes:
        flags = [argument for argument in node.args if argument is True]
        if str(node.target).startswith(_TRAINS) and flags:
            # batch_norm's last flag says that cuDNN may be used, and is True either way.
            if "batch_norm" in str(node.target) and node.args[5] is not True:
                continue
            raise TaskError(
                f"{path} was exported in training mode: {node.target} drops or normalises by batch",
                expected="a model in eval mode",
                next_step="call model.eval() before torch.export.export",
            )
    module = program.module(check_guards=False)
    # A plain copy: what program.module() returns refuses eval(), which changes nothing in a graph.
    return GraphModule(module, module.graph)


def _example_inputs(path: Path, program: ExportedProgram) -> Tensors:
    inputs, named = program.example_inputs or ((), {})
    if named or not inputs or not all(isinstance(tensor, Tensor) for tensor in inputs):
        raise TaskError(
            f"{path} has example inputs that are not a tuple of tensors",
            expected="torch.export.export(model, (tensor, ...)), without keyword arguments",
        )
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"]
    stated = [(list(v.shape), v.dtype) for v in values[len(values) - len(inputs) :]]
    found = [(list(tensor.shape), tensor.dtype) for tensor in inputs]
    if found != stated:
        raise TaskError(
            f"{path} has example inputs of {_described(found)}, and its graph takes "
            f"{_described(stated)}",
            expected="the inputs that the model was exported with",
            next_step="save it again with torch.export.save",
        )
    return tuple(inputs)


def _described(tensors: list[tuple[list[int], torch.dtype]]) -> str:
    return ", ".join(f"{shape} {dtype}" for shape, dtype in tensors)
