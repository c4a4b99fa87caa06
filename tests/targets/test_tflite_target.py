"""The target without its toolchain, what it offers, and the silence around converters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tflite_nets import compressed, network, runtime

from edgesdk import target
from edgesdk.errors import TargetUnavailable
from edgesdk.host_runtime import HostRuntime
from edgesdk.scheme import SCHEMES, WEIGHT_ONLY_SCHEMES, Scheme
from edgesdk.target import Target, find_target
from edgesdk_tflite import TARGET, packages
from edgesdk_tflite.naming import _Names
from edgesdk_tflite.quiet import captured_output

OFFERED = tuple(scheme for scheme in SCHEMES if scheme not in ("w8a16", *WEIGHT_ONLY_SCHEMES))


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "installed_version", lambda _: None)


def test_the_entry_point_names_this_target() -> None:
    assert find_target("tflite") is TARGET
    assert isinstance(TARGET, Target)
    assert TARGET.name == "tflite"


def test_importing_the_target_imports_no_toolchain() -> None:
    toolchains = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer", "tflite_micro", "jax")
    program = f"import sys, edgesdk_tflite; print([m for m in {toolchains} if m in sys.modules])"

    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "[]"


def test_the_toolchain_names_packages_and_the_command_that_installs_them() -> None:
    chain = TARGET.toolchain()

    names = [package.name for package in chain.packages if not package.optional]
    assert names == ["litert-torch", "litert-converter", "ai-edge-quantizer", "ai-edge-litert"]
    assert chain.install == "pip install 'edgesdk[tflite]'"
    assert packages.micro_toolchain().install == "pip install 'edgesdk[micro]'"


def test_proven_versions_are_those_the_project_pins() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    extra_names = ("tflite", "micro", "arm")
    pinned = {line for extra in extra_names for line in extras[extra] if "==" in line}

    chains = [packages.converter_toolchain(), packages.micro_toolchain()]
    chains.append(packages.vela_toolchain())
    assert {f"{p.name}=={p.proven}" for chain in chains for p in chain.packages} == pinned


@pytest.mark.usefixtures("nothing_installed")
def test_without_the_toolchain_it_says_what_to_install(tmp_path: Path) -> None:
    module, examples = network("perceptron")

    assert not TARGET.toolchain().is_complete
    assert TARGET.capability(runtime()).schemes == OFFERED
    with pytest.raises(TargetUnavailable, match="litert-torch") as raised:
        TARGET.emit(compressed(module, examples), runtime(), tmp_path)
    assert raised.value.next_step == "pip install 'edgesdk[tflite]'"


@pytest.mark.usefixtures("nothing_installed")
def test_a_microcontroller_needs_the_micro_extra_and_a_phone_does_not() -> None:
    assert TARGET.host_runtime(runtime("litert")) == HostRuntime(name="litert")
    with pytest.raises(TargetUnavailable, match="tflite-micro") as raised:
        TARGET.host_runtime(runtime("tflite-micro"))
    assert raised.value.next_step == "pip install 'edgesdk[micro]'"


@pytest.mark.toolchain
def test_microcontroller_files_run_in_micro() -> None:
    assert TARGET.host_runtime(runtime("tflite-micro")) == HostRuntime(name="tflite-micro")


@pytest.mark.parametrize("profiled", [OFFERED, ("fp32", "int8"), ("fp16",)])
def test_schemes_are_those_of_the_profile_with_a_reason_for_each_other(
    profiled: tuple[Scheme, ...],
) -> None:
    capability = TARGET.capability(runtime(schemes=profiled))

    assert capability.schemes == tuple(s for s in SCHEMES if s in profiled)
    assert set(capability.refused) == set(SCHEMES) - set(profiled)
    assert all("litert" in reason.lower() for reason in capability.refused.values())


def test_micro_refuses_float16_and_says_why() -> None:
    capability = TARGET.capability(runtime("tflite-micro"))

    assert capability.schemes == ("fp32", "int8", "w8a16")
    assert "DEQUANTIZE" in capability.refused["fp16"]


def test_nothing_is_simulated_because_the_file_runs_here() -> None:
    module, examples = network("perceptron")

    assert TARGET.simulate(compressed(module, examples)) is None


def test_output_of_python_and_of_c_is_captured_and_streams_come_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with captured_output() as output:
        print("from python")
        os.write(1, b"from c on stdout\n")
        os.write(2, b"from c on stderr\n")
    print("afterwards")

    assert all(part in output.text for part in ("python", "c on stdout", "c on stderr"))
    assert capfd.readouterr() == ("afterwards\n", "")


def test_streams_come_back_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), captured_output():
        raise RuntimeError

    os.write(1, b"still here\n")
    assert capfd.readouterr().out == "still here\n"


def test_names_are_given_once() -> None:
    names = _Names()
    given = [names.take(name) for name in ("conv", "conv", "conv;1", "conv", "norm")]

    assert given == ["conv", "conv;1", "conv;1;1", "conv;2", "norm"]
    assert len(set(given)) == len(given)


def test_random_statistics_are_repeatable() -> None:
    first, second = network("residual")[0], network("residual")[0]

    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
