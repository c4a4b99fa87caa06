"""Loads, runs and converts a Keras or TensorFlow model: alone, where edgesdk is not installed.

    python -I tensorflow_worker.py

Every line on stdin is a JSON request, and one line on stdout answers it: ``open`` (check, load and
describe a model), ``run`` (inputs and outputs in ``.npz`` files), ``convert`` (a float ``.tflite``
for inputs of given shapes). Needs Python 3.11, TensorFlow and Keras alone. A model is untrusted:
custom Python code is never run, and a SavedModel whose graph reads or writes files is refused.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_AT_ONCE = 128
_DTYPES = ("float32", "int32", "int64", "uint8", "int8", "bool")
_DEFAULT = "serving_default"
# Keras exports its one function under both names.
_EXPORTED = {"serve", _DEFAULT}

# What a graph may do besides computing: hold weights, call its own functions, draw numbers.
_MAY = frozenset(
    {
        "Assert", "AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp", "Case",
        "DisableCopyOnRead", "If",
        "NoOp", "Placeholder", "ReadVariableOp", "StatefulPartitionedCall", "VarHandleOp",
        "VarIsInitializedOp", "While",
    }
)  # fmt: skip
_DRAWS = ("Random", "StatelessRandom", "RngReadAndSkip", "Multinomial", "TruncatedNormal")
# Stateless by TensorFlow's own books, and yet they read files, run Python or write where told.
_MAY_NOT = re.compile(
    r"(ReadFile|MatchingFiles|PyFunc|EagerPyFunc|ImmutableConst|LoadAndRemapMatrix|"
    r"GenerateVocabRemapping|EncodeProto|DecodeProto|Debug|.*Dataset|TPU|Xla)"
)
# How a SavedModel keeps its weights; its own functions must not call these.
_KEEPS = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"})
_KEEPERS = ("__inference__traced_save", "__inference__traced_restore")


class Refused(Exception):
    """What is wrong with a model, what was expected, and the next step."""

    def __init__(self, found: str, *, expected: str = "", next_step: str = "") -> None:
        super().__init__(found)
        self.said = {"found": found, "expected": expected, "next_step": next_step}


class Model:
    """A loaded model: its tensors' names, shapes (None: open) and types, and how it is called."""

    def __init__(self, trackable: Any, call: Callable[..., Any], inputs: list[Any]) -> None:
        self.trackable = trackable
        self.call = call
        self.inputs = [
            {"name": name, "shape": list(shape), "dtype": dtype} for name, shape, dtype in inputs
        ]
        self.outputs: list[str] = []
        self.probabilities = False
        self.layers: list[str] = []
        self._runs: Any = None

    def serve(self, *tensors: Any) -> dict[str, Any]:
        """Return the outputs under the names that the converter is to give them."""
        import tensorflow as tf

        found = tf.nest.flatten(self.call(*tensors))
        return {f"output_{index}": tensor for index, tensor in enumerate(found)}

    def run(self, tensors: list[Any]) -> list[Any]:
        """Return the outputs ``[N, ...]``, computed batch by batch; a fixed batch is filled up."""
        import numpy as np
        import tensorflow as tf

        self._runs = self._runs or tf.function(self.serve, reduce_retracing=True)
        count, fixed = len(tensors[0]), self.inputs[0]["shape"][0]
        size = fixed or min(count, _AT_ONCE)
        parts: list[list[Any]] = []
        for start in range(0, count, size):
            batch = [tensor[start : start + size] for tensor in tensors]
            if fixed and len(batch[0]) < size:
                missing = size - len(batch[0])
                batch = [np.concatenate([b, np.repeat(b[-1:], missing, axis=0)]) for b in batch]
            parts.append([part.numpy() for part in self._runs(*map(tf.constant, batch)).values()])
        return [np.concatenate(column)[:count] for column in zip(*parts, strict=True)]

    def convert(self, shapes: list[list[int]]) -> bytes:
        """Return a float ``.tflite`` of LiteRT's own operators, for inputs of those shapes."""
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        specs = [
            tf.TensorSpec(shape, given["dtype"], name=f"args_{index}")
            for index, (shape, given) in enumerate(zip(shapes, self.inputs, strict=True))
        ]
        concrete = tf.function(self.serve).get_concrete_function(*specs)
        # Keras' variables are not TensorFlow's: unless they are constants by then, the converter
        # leaves a file that asks for its weights at run time, and says nothing.
        frozen = convert_variables_to_constants_v2(concrete)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], self.trackable)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.exclude_conversion_metadata = True
        try:
            content: bytes = converter.convert()
        except Exception as problem:
            raise _not_converted(problem) from problem
        return content


def _not_converted(problem: Exception) -> Refused:
    lacking = sorted(set(re.findall(r"'(tf\.\w+)' op", str(problem))))
    if not lacking:
        return Refused(f"TensorFlow's converter cannot convert the model: {_first_line(problem)}")
    return Refused(
        f"LiteRT has no operator for {', '.join(lacking)}",
        expected="a network whose operators TensorFlow's converter knows for LiteRT",
        next_step="replace the layers that use them",
    )


def _first_line(problem: Exception) -> str:
    """Return the first line of a message, the kind of problem where it says nothing."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def open_keras(path: str) -> Model:
    """Return the model of a ``.keras`` file, without its optimizer and without Python of its own.

    Who asks has looked for custom classes before; ``safe_mode`` is the second lock.
    """
    import keras
    import tensorflow as tf

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as problem:
        raise Refused(
            f"Keras {keras.__version__} cannot load it: {_first_line(problem)}",
            next_step="save it again with model.save('model.keras') from Keras 3",
        ) from problem
    try:
        tensors = list(model.inputs)
    except (AttributeError, ValueError, TypeError):
        tensors = []
    if not tensors:
        raise Refused(
            "the model does not say what it takes",
            expected="a functional or a sequential model with an Input",
            next_step="begin the model with keras.Input(shape=...) and save it again",
        )
    inputs = [(tensor.name, tensor.shape, str(tensor.dtype)) for tensor in tensors]

    def call(*given: Any) -> Any:
        structure = getattr(model, "_inputs_struct", None)
        packed = given[0] if structure is None else tf.nest.pack_sequence_as(structure, given)
        return model(packed, training=False)

    found = Model(model, call, inputs)
    structure = getattr(model, "_outputs_struct", None)
    found.outputs = sorted(structure) if isinstance(structure, dict) else list(model.output_names)
    found.layers = [layer.name for layer in _layers(model)]
    last = model.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    softmax = activation == "softmax" or type(last).__name__ == "Softmax"
    found.probabilities = softmax and len(found.outputs) == 1
    return found


def _layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)


def open_saved_model(path: str, signature: str) -> Model:
    """Return a signature of a SavedModel whose graph was looked through before anything ran."""
    import tensorflow as tf

    _check_graph(Path(path))
    try:
        loaded = tf.saved_model.load(path)
    except Exception as problem:
        raise Refused(
            f"TensorFlow {tf.__version__} cannot load it: {_first_line(problem)}",
            next_step="save it again with model.export(FOLDER) or tf.saved_model.save",
        ) from problem
    function = loaded.signatures[_choose(sorted(loaded.signatures), signature)]
    named = sorted(function.structured_input_signature[1].items())
    inputs = [(name, spec.shape.as_list(), spec.dtype.name) for name, spec in named]
    outputs = sorted(function.structured_outputs)

    def call(*given: Any) -> Any:
        names = [name for name, _ in named]
        answered = function(**dict(zip(names, given, strict=True)))
        return [answered[name] for name in outputs]

    found = Model(loaded, call, inputs)
    found.outputs = outputs
    return found


def _choose(names: list[str], wanted: str) -> str:
    if wanted in names:
        return wanted
    if not wanted and len(names) == 1:
        return names[0]
    if not wanted and set(names) == _EXPORTED:
        return _DEFAULT
    asked = f"no signature {wanted!r}, but" if wanted else "several signatures:" if names else ""
    raise Refused(
        f"the SavedModel has {asked or 'no signature'} {', '.join(names)}".rstrip(),
        expected="one function to deploy",
        next_step=f"name one in a task in Python: keras_model(FOLDER, signature={names[0]!r})"
        if names
        else "save it with model.export(FOLDER), or with signatures=...",
    )


def _check_graph(folder: Path) -> None:
    """Raise ``Refused`` for a graph that does more than compute."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2

    document = saved_model_pb2.SavedModel()
    try:
        document.ParseFromString((folder / "saved_model.pb").read_bytes())
    except (DecodeError, OSError) as problem:
        raise Refused(f"saved_model.pb cannot be read: {problem}") from problem
    for graph in document.meta_graphs:
        if not graph.HasField("object_graph_def"):
            raise Refused(
                "it was saved by TensorFlow 1",
                next_step="load it where it was made and save it with tf.saved_model.save",
            )
        functions = graph.graph_def.library.function
        own = {function.signature.name for function in functions}
        for node in graph.graph_def.node:  # the saver's: loading runs functions alone
            _check_node(node, own, keeps=True)
        for function in functions:
            keeps = function.signature.name.startswith(_KEEPERS)
            for node in function.node_def:
                _check_node(node, own, keeps=keeps)
    if not document.meta_graphs:
        raise Refused("saved_model.pb holds no graph")


def _check_node(node: Any, own: set[str], *, keeps: bool) -> None:
    """Raise ``Refused`` for an operator that does more than compute.

    ``own`` are the graph's functions; ``keeps``: it is part of how weights are kept.
    """
    from tensorflow.python.framework import op_def_registry

    calls = [node.op]
    for value in node.attr.values():
        calls += [value.func.name, *(function.name for function in value.list.func)]
    if not keeps and (node.op in _KEEPS or any(name.startswith(_KEEPERS) for name in calls)):
        raise _beyond(node.op, "writes or reads files")
    if node.op in own or node.op in _KEEPS:
        return
    known = op_def_registry.get(node.op)
    if known is None:
        raise _beyond(node.op, "is no operator of TensorFlow")
    draws = node.op.startswith(_DRAWS)
    if _MAY_NOT.match(node.op) or (known.is_stateful and node.op not in _MAY and not draws):
        raise _beyond(node.op, "does more than compute")


def _beyond(operator: str, what: str) -> Refused:
    return Refused(
        f"the graph holds {operator}, which {what}",
        expected="a graph that computes its outputs from its inputs and its weights",
        next_step="move that step out of the model (reading files, tables of words, Python)",
    )


def describe(model: Model) -> dict[str, Any]:
    """Return what is to be known of a model before it is run."""
    import keras
    import tensorflow as tf

    for given in model.inputs:
        if given["dtype"] not in _DTYPES:
            raise Refused(
                f"input {given['name']!r} is of type {given['dtype']}",
                expected=f"one of {', '.join(_DTYPES)}",
                next_step="cast it in front of the model",
            )
    return {
        "inputs": model.inputs,
        "outputs": model.outputs,
        "probabilities": model.probabilities,
        "layers": model.layers,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def answer(request: dict[str, Any], opened: list[Model]) -> dict[str, Any]:
    """Return the answer to one request; ``opened`` holds the model once there is one."""
    import numpy as np

    if request["do"] == "open":
        path = request["path"]
        is_folder = request["kind"] == "saved_model"
        model = open_saved_model(path, request["signature"]) if is_folder else open_keras(path)
        opened.append(model)
        return describe(model)
    if request["do"] == "run":
        with np.load(request["inputs"], allow_pickle=False) as stored:
            tensors = [stored[f"arr_{index}"] for index in range(len(stored.files))]
        outputs = opened[0].run(tensors)
        np.savez(request["outputs"], *outputs)
        return {"count": len(outputs)}
    Path(request["to"]).write_bytes(opened[0].convert(request["shapes"]))
    return {}


def main() -> None:
    """Answer requests until there are no more; without TensorFlow end with a traceback."""
    import tensorflow  # noqa: F401 - before the first request, so that its lack is no answer

    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the libraries print is not an answer
    opened: list[Model] = []
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line), opened)
        except Refused as problem:
            reply = {"refused": problem.said}
        except Exception as problem:  # noqa: BLE001 - whatever TensorFlow raises is about the model
            said = (str(problem).strip().splitlines() or [""])[0]
            reply = {"failed": f"{type(problem).__name__}: {said}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
