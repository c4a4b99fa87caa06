"""Checks of a Core ML package: what is damaged, swapped or not what was asked must not pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from coreml_nets import compressed, runtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesdk.compressed import CompressedModel
from edgesdk.errors import ArtifactError, UnsupportedModel, UsageError
from edgesdk.scheme import Scheme
from edgesdk.target import Emission
from edgesdk_coreml import TARGET
from edgesdk_coreml.dataflow import Dataflow
from edgesdk_coreml.evaluate import evaluator
from edgesdk_coreml.package import SPECIFICATION, WEIGHTS, read_program, read_specification

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]

PACKAGE = "model.mlpackage"
NET = "residual"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that emits the residual network once in a scheme."""

    @cache
    def emitted(scheme: Scheme) -> tuple[Path, Emission, CompressedModel]:
        folder = tmp_path_factory.mktemp(scheme)
        model = compressed(NET, scheme)
        return folder, TARGET.emit(model, runtime(), folder), model

    return emitted


@pytest.fixture
def failures(original, tmp_path: Path) -> Callable[..., set[str]]:
    """Return a function that damages a copy and names the checks that fail on it."""

    def failed(scheme: Scheme, damage: Callable[[Path], None], asked: Scheme | None = None):
        folder, emission, model = original(scheme)
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        damage(tmp_path / PACKAGE)
        model = model if asked is None else compressed(NET, asked)
        checks = TARGET.checks(tmp_path, emission, model)
        return {check.name for check in checks if not check.passed}

    return failed


def edit(package: Path, change: Callable) -> None:
    """Apply a change to the operations of a package's program."""
    specification = read_specification(package)
    function = specification.mlProgram.functions["main"]
    change(specification, list(function.block_specializations[function.opset].operations))
    (package / SPECIFICATION).write_bytes(specification.SerializeToString(deterministic=True))


def named(operations: list, name: str):
    return next(op for op in operations if op.outputs[0].name == name)


def flip(position: float, mask: int) -> Callable[[Path], None]:
    def damage(package: Path) -> None:
        content = bytearray((package / WEIGHTS).read_bytes())
        content[int(position * len(content))] ^= mask
        (package / WEIGHTS).write_bytes(content)

    return damage


@pytest.mark.parametrize("scheme", ["fp16", "int8", "lut4"])
def test_an_untouched_copy_passes(failures, scheme: Scheme) -> None:
    assert failures(scheme, lambda package: None) == set()


@pytest.mark.parametrize("scheme", ["fp32", "fp16", "int8", "lut4"])
def test_one_flipped_bit_of_a_weight_fails(original, failures, scheme: Scheme) -> None:
    folder, _, _ = original(scheme)
    content = (folder / PACKAGE / WEIGHTS).read_bytes()
    program = read_program(folder / PACKAGE)
    flow = Dataflow(program)
    weight = flow.stored_weight(next(op for op in flow.weighted() if op.name == "conv2_conv"))
    assert weight is not None
    start = content.index(weight.tobytes())
    # The highest bit but the sign of the first element: half the range of an int8 weight. Of places
    # in a table the second is four further.
    place = start + weight.itemsize - 1
    assert "weights" in failures(scheme, flip((place + 0.5) / len(content), 0x40))


@pytest.mark.parametrize(
    "damage",
    [
        lambda weights: weights.unlink(),
        lambda weights: weights.write_bytes(b""),
        lambda weights: weights.write_bytes(weights.read_bytes()[:-200]),
        lambda weights: weights.write_bytes(bytes(len(weights.read_bytes()))),
        lambda weights: weights.write_bytes(weights.read_bytes()[:64] + weights.read_bytes()),
    ],
    ids=["missing", "empty", "cut", "zeros", "shifted"],
)
def test_a_damaged_weight_file_fails(failures, damage: Callable[[Path], None]) -> None:
    assert failures("int8", lambda package: damage(package / WEIGHTS)) == {"package opens"}


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"not a model"])
def test_a_damaged_program_fails(failures, content: bytes) -> None:
    def damage(package: Path) -> None:
        (package / SPECIFICATION).write_bytes(content)

    assert failures("fp16", damage) == {"package opens"}


@pytest.mark.parametrize("scheme", ["fp16", "int8", "lut4"])
def test_swapped_weights_fail(failures, scheme: Scheme) -> None:
    def swap(_specification, operations: list) -> None:
        first, second = named(operations, "conv1_conv"), named(operations, "conv2_conv")
        one, other = (op.inputs["weight"].arguments[0] for op in (first, second))
        one.name, other.name = other.name, one.name
        # The constants have to come before their first reader.
        function = _specification.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        constants = [op for op in operations if op.type == "const"]
        decoders = [op for op in operations if op.type.startswith("constexpr_")]
        others = [op for op in operations if op not in constants and op not in decoders]
        ordered = [type(op).FromString(op.SerializeToString()) for op in
                   (*constants, *decoders, *others)]  # fmt: skip
        del block.operations[:]
        block.operations.extend(ordered)

    failed = failures(scheme, lambda package: edit(package, swap))
    assert {"weights", "graph evaluated"} <= failed


@pytest.mark.parametrize("scheme", ["fp16", "int8"])
def test_a_wrong_operation_fails(failures, scheme: Scheme) -> None:
    def change(_specification, operations: list) -> None:
        next(op for op in operations if op.type == "relu").type = "tanh"

    assert "graph evaluated" in failures(scheme, lambda package: edit(package, change))


def test_a_wrong_activation_scale_fails(failures) -> None:
    def change(_specification, operations: list) -> None:
        dequantize = [op for op in operations if op.type == "dequantize"][2]
        scale = named(operations, dequantize.inputs["scale"].arguments[0].name)
        value = scale.attributes["val"].immediateValue.tensor.bytes
        # One more in the exponent of a float16 doubles it.
        value.values = bytes([value.values[0], value.values[1] + 4])

    assert "graph evaluated" in failures("int8", lambda package: edit(package, change))


@pytest.mark.parametrize(("written", "asked"), [("fp16", "int8"), ("int8", "fp16"),
                                                ("fp32", "fp16"), ("fp16", "fp32")])  # fmt: skip
def test_another_precision_than_the_one_asked_for_fails(failures, written, asked) -> None:
    assert "precision" in failures(written, lambda package: None, asked)


def test_int8_weights_alone_are_not_int8(original, tmp_path: Path) -> None:
    import coremltools
    from coremltools.optimize import coreml as compression

    folder, emission, _ = original("fp16")
    model = coremltools.models.MLModel(str(folder / PACKAGE), skip_model_load=True)
    config = compression.OptimizationConfig(
        global_config=compression.OpLinearQuantizerConfig(weight_threshold=0)
    )
    compression.linear_quantize_weights(model, config).save(str(tmp_path / PACKAGE))
    checks = TARGET.checks(tmp_path, emission, compressed(NET, "int8"))
    precision = next(check for check in checks if check.name == "precision")
    assert not precision.passed
    assert "0 of 4 layers" in precision.detail


def test_one_layer_left_in_float_is_named(failures, original, tmp_path: Path) -> None:
    def change(_specification, operations: list) -> None:
        quantized = named(operations, "conv2_conv")
        fed = named(operations, quantized.inputs["x"].arguments[0].name)
        before = named(operations, fed.inputs["input"].arguments[0].name)
        quantized.inputs["x"].arguments[0].name = before.inputs["input"].arguments[0].name

    failed = failures("int8", lambda package: edit(package, change))
    assert "precision" in failed
    _, emission, model = original("int8")
    checks = {check.name: check for check in TARGET.checks(tmp_path, emission, model)}
    assert "left in float: conv2_conv" in checks["precision"].detail


def test_another_deployment_target_fails(failures) -> None:
    def change(specification, _operations: list) -> None:
        specification.specificationVersion = 9

    assert failures("fp16", lambda package: edit(package, change)) == {"deployment target"}


def test_other_inputs_than_promised_fail(failures) -> None:
    def change(specification, _operations: list) -> None:
        specification.description.input[0].type.multiArrayType.shape[0] = 2

    failed = failures("fp16", lambda package: edit(package, change))
    assert failed == {"inputs and outputs", "graph evaluated"}


def test_a_renamed_output_fails(failures) -> None:
    def change(specification, _operations: list) -> None:
        specification.description.output[0].name = "something"

    assert failures("fp16", lambda package: edit(package, change)) == {"package opens"}


def test_weights_outside_the_package_are_refused(failures) -> None:
    def change(_specification, operations: list) -> None:
        for op in operations:
            if op.type == "const" and op.attributes["val"].HasField("blobFileValue"):
                name = "@model_path/../../../../etc/passwd"
                op.attributes["val"].blobFileValue.fileName = name

    assert failures("fp16", lambda package: edit(package, change)) == {"package opens"}


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4))
def test_no_damage_crashes_the_reader(original, tmp_path: Path, flips: list) -> None:
    folder, _, model = original("int8")
    package = tmp_path / PACKAGE
    if not package.exists():
        shutil.copytree(folder / PACKAGE, package)
    content = bytearray((folder / PACKAGE / SPECIFICATION).read_bytes())
    for position, mask in flips:
        content[int(position * len(content))] ^= mask
    (package / SPECIFICATION).write_bytes(content)
    inputs = [model.example_inputs[0].numpy()]
    try:
        program = read_program(package)
        Dataflow(program).count_operators()
        evaluator(program)(inputs)
    except (ArtifactError, UnsupportedModel, UsageError):
        pass
