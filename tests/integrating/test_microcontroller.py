"""The microcontroller's app: compiled for Cortex-M as far as it goes without TFLM, run on a PC.

``tflm_interface`` declares the part of TFLM's interface that the code uses; it is not TFLM.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from programs import needs
from sealed import ARTIFACTS, seal, sealed

from edgesdk.artifact import GOLDEN, Manifest, read_manifest, sha256_of
from edgesdk.compressed import CompressedModel
from edgesdk.demo import resnet
from edgesdk.device_files import load_device
from edgesdk.document import from_builtins
from edgesdk.errors import ArtifactError, UnsupportedModel
from edgesdk.figure import predicted
from edgesdk.integrating.generation import integrate
from edgesdk.integrating.tflm_operators import resolver_methods
from edgesdk.running.adapter import decode_outputs, encode_inputs, quantize
from edgesdk.stages.sealing import read_golden
from edgesdk_tflite import TARGET
from edgesdk_tflite.vela import compile_for_ethos_u

HERE = Path(__file__).parent
ARTIFACT = ARTIFACTS / "digits_microcontroller"
WARNINGS = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-Wno-sign-conversion"]
NM = "arm-none-eabi-nm"
CORTEX_M7 = ["-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-d16", "-mfloat-abi=hard"]
CORTEX_M0 = ["-mcpu=cortex-m0plus", "-mthumb"]

pytestmark = pytest.mark.toolchain  # the file is read with the target's own reader


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("apps") / "microcontroller"
    integrate(ARTIFACT, "microcontroller", out)
    return out


def compile_app(app: Path, compiler: str, flags: list[str], output: Path) -> None:
    sources = sorted(app.glob("src/*.cc"))
    includes = [f"-I{app}/include", f"-I{app}/src", f"-isystem{HERE}/tflm_interface"]
    command = [compiler, *WARNINGS, "-DTF_LITE_STATIC_MEMORY", *includes, *flags]
    if "-c" not in flags:
        subprocess.run([*command, *sources, "-o", output], check=True, timeout=300)
        return
    for source in [*sources, app / "example/main.cc"]:
        subprocess.run([*command, source, "-o", output / f"{source.stem}.o"], check=True)


@pytest.mark.slow
@needs("arm-none-eabi-g++")
@pytest.mark.parametrize(("core", "counts"), [(CORTEX_M7, True), (CORTEX_M0, False)])
def test_it_compiles_for_cortex_m(app: Path, tmp_path: Path, core: list[str], counts: bool) -> None:
    names = ['-DDEVICE_NAME="board"', '-DPLATFORM_NAME="core"', '-DTFLM_VERSION="none"']
    flags = ["-c", "-Os", "-fno-exceptions", "-fno-rtti", "-DCLOCK_HZ=280000000", *core, *names]
    compile_app(app, "arm-none-eabi-g++", flags, tmp_path)
    list_symbols = [NM, "--size-sort", "--print-size", "--demangle", tmp_path / "model_data.o"]
    symbols = subprocess.run(list_symbols, check=True, capture_output=True, text=True).stdout
    model_bytes = (ARTIFACT / "model.tflite").stat().st_size
    assert f"{model_bytes:08x} R digits::kModel\n" in symbols, "in read-only memory, whole"
    main = subprocess.run([NM, "--demangle", tmp_path / "main.o"], check=True, capture_output=True)
    assert (b"ReadCycleCounter" in main.stdout) == counts, "where the core has a DWT unit"


@pytest.fixture(scope="module")
def run(app: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    program = tmp_path_factory.mktemp("host") / "program"
    compile_app(app, "g++", ["-O1", str(HERE / "microcontroller_host.cc")], program)

    def call(pixels: np.ndarray, shift: int = 0) -> dict[str, str]:
        text = " ".join(repr(float(p)) for p in pixels.reshape(-1))
        done = subprocess.run(
            [program, str(shift)], input=text, capture_output=True, text=True, check=True
        )
        lines = (line.partition(" ") for line in done.stdout.splitlines())
        return {"{" if name.startswith("{") else name: name + " " + rest for name, _, rest in lines}

    return call


def numbers(line: str) -> list[float]:
    return [float(word) for word in line.split()[1:]]


def golden_pixels() -> np.ndarray:
    """The first golden image as an app has it: pixels from 0 to 1, [H, W, C]."""
    manifest = read_manifest(ARTIFACT)
    (images,), _ = read_golden(ARTIFACT / GOLDEN)
    [spec] = manifest.input_specs
    return images[0].permute(1, 2, 0).numpy() * spec.std[0] + spec.mean[0]


@pytest.mark.slow
@needs("g++")
def test_its_arithmetic_is_that_of_the_artifact(run: Callable[..., dict[str, str]]) -> None:
    manifest = read_manifest(ARTIFACT)
    _, (logits,) = read_golden(ARTIFACT / GOLDEN)
    pixels = golden_pixels()
    said = run(pixels)
    assert said["load"] == "load ok", "SHA-256 in C++ is hashlib's"
    [spec], [meaning] = manifest.inputs, manifest.input_specs
    real = (pixels - np.float32(meaning.mean[0])) / np.float32(meaning.std[0])
    assert numbers(said["image"]) == quantize(real.reshape(-1), spec).tolist()
    # The last golden inference was the last to run.
    invocations = int(numbers(said["self_test"])[1])
    assert numbers(said["logits"]) == pytest.approx(logits[invocations - 1].tolist(), rel=1e-6)
    _, index, label, score = said["best"].split()
    assert int(index) == int(logits[invocations - 1].argmax())
    assert label == manifest.outputs[0].labels[int(index)]
    assert float(score) == pytest.approx(float(logits[invocations - 1].max()), rel=1e-6)


@pytest.mark.slow
@needs("g++")
def test_its_self_test_passes_on_the_golden_answers_and_on_no_others(
    run: Callable[..., dict[str, str]],
) -> None:
    [spec] = read_manifest(ARTIFACT).outputs
    passed, invocations, differing, largest, noise = numbers(run(golden_pixels())["self_test"])
    assert (passed, differing, largest, noise) == (1, 0, 0, 0)
    assert 1 <= invocations <= 64
    passed, invocations, differing, largest, noise = numbers(run(golden_pixels(), 20)["self_test"])
    assert passed == 0
    assert differing == invocations * spec.shape[1]
    assert spec.scale is not None
    assert noise >= 20**2 * spec.scale**2 * differing * 0.99


@pytest.mark.slow
@needs("g++")
@pytest.mark.parametrize(("shift", "status"), [(0, "passed"), (20, "failed")])
def test_its_measurement_is_one(
    run: Callable[..., dict[str, str]], shift: int, status: str
) -> None:
    from measurements import check_measurement

    said = run(golden_pixels(), shift)
    document = json.loads(said["{"] if "{" in said else said['{"schema_version":'])
    check_measurement(document)
    assert document["artifact_sha256"] == sha256_of(ARTIFACT / "model.tflite")
    assert document["self_test"]["status"] == status
    assert document["peak_memory"] == {"counts": "arena", "bytes": 4321}
    # First, warm-up and timed inferences, and the self-test's twice: before and after.
    tests = 2 * document["self_test"]["samples"]
    wanted = 1 + document["warmup_runs"] + document["runs"] + tests
    assert int(numbers(said["invocations"])[0]) == wanted


@pytest.mark.slow
@needs("g++")
def test_int16_tensors_are_quantized_and_tested_as_the_artifact_has_them(tmp_path: Path) -> None:
    """The digits' network in w8a16: the file, its golden vectors and its manifest are made here."""
    artifact = int16_artifact(tmp_path / "artifact")
    app = tmp_path / "app"
    integrate(artifact, "microcontroller", app)
    compile_app(app, "g++", ["-O1", str(HERE / "microcontroller_host.cc")], tmp_path / "program")
    pixels = golden_pixels()
    text = " ".join(repr(float(p)) for p in pixels.reshape(-1))
    for shift, passes in (("0", 1), ("2000", 0)):
        done = subprocess.run(
            [tmp_path / "program", shift], input=text, capture_output=True, text=True, check=True
        )
        said = {line.split()[0]: line for line in done.stdout.splitlines()}
        assert numbers(said["self_test"])[0] == passes
    manifest = read_manifest(artifact)
    [spec], [meaning] = manifest.inputs, manifest.input_specs
    real = (pixels - np.float32(meaning.mean[0])) / np.float32(meaning.std[0])
    assert spec.dtype == "int16"
    assert numbers(said["image"]) == quantize(real.reshape(-1), spec).tolist()
    constants = (app / "include/digits/constants.h").read_text()
    assert "using LogitsTensor = std::int16_t;" in constants
    # Four windows of the widest convolution, 3 x 3 x 64 numbers of two bytes, in whole vectors.
    assert f"{8 * 576 + 64} for CMSIS-NN's scratch buffer" in constants


def int16_artifact(folder: Path) -> Path:
    """Return the digits artifact with its tensors, file and golden outputs in int16."""
    (images,), _ = read_golden(ARTIFACT / GOLDEN)
    before = read_manifest(ARTIFACT)
    model = CompressedModel(
        module=resnet.ResNet(channels=1, widths=(16, 32, 64), blocks=(1, 1, 1), classes=10).eval(),
        example_inputs=(images[:1],),
        scheme="w8a16",
        calibration=((images,),),
        inputs=before.input_specs,
        outputs=before.output_specs,
    )
    shutil.copytree(ARTIFACT, folder)
    runtime = load_device("nucleo_h7a3zi_q").runtime_for("tflite")
    emission = TARGET.emit(model, runtime, folder)
    stacked, count = encode_inputs((images,), emission.inputs)
    session = TARGET.open(folder, emission, "tflite-micro", 1)
    answers = np.stack([session.run([image])[0] for image in stacked[0]])
    (logits,) = decode_outputs([answers], emission.outputs, count)
    golden = {"input.0": images, "output.0": logits}
    safetensors.torch.save_file(golden, folder / GOLDEN)
    return seal(folder, replace(before, inputs=emission.inputs, outputs=emission.outputs))


def test_the_resolver_has_the_operators_of_the_file_and_no_more(app: Path) -> None:
    text = (app / "src/operators.h").read_text()
    operators = {count.op for count in read_manifest(ARTIFACT).operators}
    assert f"MicroMutableOpResolver<{len(operators)}>" in text
    assert text.count("operators.Add") == len(operators)
    for method in resolver_methods(operators):
        assert f"operators.{method}()" in text


def test_an_operator_that_tflm_lacks_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModel, match="GELU"):
        resolver_methods(["CONV_2D", "GELU"])


def test_the_arena_is_what_was_proven_and_the_margin_that_the_readme_states(app: Path) -> None:
    proven = int(read_manifest(ARTIFACT).verified["memory_bytes"].value)
    constants = (app / "include/digits/constants.h").read_text()
    [total] = [int(x.split()[-1].rstrip(";")) for x in constants.splitlines() if "kArenaBytes" in x]
    assert 1.25 * proven <= total <= 1.25 * proven + 16 * 1024
    assert f"{total} bytes of RAM: {proven} proven" in (app / "README.md").read_text()


def test_an_artifact_without_a_proven_arena_is_refused(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "a", like="digits_microcontroller", verified={})
    with pytest.raises(ArtifactError, match="no proven arena"):
        integrate(folder, "microcontroller", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_torch_reads_half_to_even_as_the_generated_code_does() -> None:
    """What ``nearbyint`` does in C++: the two roundings have to be one."""
    assert torch.tensor([0.5, 1.5, 2.5]).round().tolist() == [0, 2, 2]
    assert np.rint([0.5, 1.5, 2.5]).tolist() == [0, 2, 2]


def test_a_file_of_vela_s_gets_its_resolver_its_arena_and_its_driver(tmp_path: Path) -> None:
    runtime = load_device("corstone_300").runtime_for("tflite")
    assert runtime.vela is not None
    artifact = tmp_path / "artifact"
    shutil.copytree(ARTIFACT, artifact)
    (artifact / "model.tflite").rename(artifact / "before_vela.tflite")
    compiled = compile_for_ethos_u(artifact / "before_vela.tflite", runtime.vela)
    (artifact / "model.tflite").write_bytes(compiled.content)
    arena = predicted(5000.0, error_factor=1.05, source="Vela's plan")
    before = json.loads((artifact / "manifest.json").read_text())
    manifest = from_builtins(Manifest, before, what="manifest")
    verified = {name: f for name, f in manifest.verified.items() if name != "memory_bytes"}
    manifest = replace(
        manifest,
        delegate=runtime.delegate,
        host_files=("before_vela.tflite",),
        verified=verified,
        predicted={**manifest.predicted, "memory_bytes": arena},
    )
    seal(artifact, manifest)

    integrate(artifact, "microcontroller", tmp_path / "app")

    operators = (tmp_path / "app/src/operators.h").read_text()
    assert "MicroMutableOpResolver<1>" in operators
    assert "operators.AddEthosU()" in operators
    readme = " ".join((tmp_path / "app/README.md").read_text().split())
    assert "5000 by Vela's plan" in readme
    assert "ethosu_init()" in readme
    assert "the command stream has run nowhere yet" in readme
    constants = next((tmp_path / "app/include").rglob("constants.h")).read_text()
    assert "kArenaBytes = 7168;" in constants, "a quarter more, in whole KiB"

    seal(artifact, replace(manifest, host_files=()))
    with pytest.raises(ArtifactError, match="no proven arena"):
        integrate(artifact, "microcontroller", tmp_path / "other")
