import subprocess
import sys
from pathlib import Path

import pytest
from reference import REFERENCE_TARGET, Register

from edgesdk.device import DeviceProfile
from edgesdk.errors import TargetUnavailable, UsageError
from edgesdk.scheme import SCHEMES
from edgesdk.target import (
    Capability,
    Package,
    Target,
    Toolchain,
    find_target,
    installed_version,
    require,
    target_names,
)

HEAVY = {
    "ai_edge_litert", "ai_edge_quantizer", "coremltools", "executorch", "litert_torch",
    "tflite_micro", "torchao",
}  # fmt: skip


def toolchain(*found: str | None) -> Toolchain:
    packages = tuple(
        Package(name=f"p{index}", found=version, proven="1.0", purpose="emits")
        for index, version in enumerate(found)
    )
    return Toolchain(target="x", packages=packages, install="pip install 'edgesdk[x]'")


def test_the_built_in_targets_are_registered() -> None:
    assert {"coreml", "executorch", "tflite"} <= set(target_names())


@pytest.mark.parametrize("name", ["coreml", "executorch", "tflite"])
def test_a_built_in_target_satisfies_the_protocol(name: str) -> None:
    target = find_target(name)
    assert isinstance(target, Target)
    assert target.name == name


def test_a_strangers_target_comes_through_the_same_door(reference_device: DeviceProfile) -> None:
    assert "numpy" in target_names()
    assert find_target("numpy").name == "numpy"
    assert reference_device.targets == ("numpy",)


def test_an_unknown_target_is_answered_with_the_near_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'executorch'") as caught:
        find_target("exectorch")
    assert caught.value.exit_code == 2


def test_two_packages_with_one_name_are_an_error(register_target: Register) -> None:
    register_target("tflite", "edgesdk_numpy:TARGET", REFERENCE_TARGET)
    with pytest.raises(UsageError, match="several packages"):
        find_target("tflite")


def test_a_module_that_cannot_be_imported_says_what_to_install(
    register_target: Register, tmp_path: Path
) -> None:
    (tmp_path / "broken_target.py").write_text("import a_toolchain_nobody_has\n")
    register_target("broken", "broken_target:TARGET", tmp_path)
    with pytest.raises(TargetUnavailable, match="a_toolchain_nobody_has") as caught:
        find_target("broken")
    assert caught.value.exit_code == 5
    assert "broken" in str(caught.value.next_step)


def test_an_object_that_is_no_target_is_refused(register_target: Register, tmp_path: Path) -> None:
    (tmp_path / "odd_target.py").write_text("TARGET = object()\n")
    register_target("odd", "odd_target:TARGET", tmp_path)
    with pytest.raises(UsageError, match="is not a Target"):
        find_target("odd")


def test_a_complete_toolchain_is_not_complained_about() -> None:
    assert toolchain("1.0", "2.0").is_complete
    require(toolchain("1.0", "2.0"))


def test_a_missing_package_is_named_with_the_command() -> None:
    incomplete = toolchain("1.0", None, None)
    assert not incomplete.is_complete
    with pytest.raises(TargetUnavailable) as caught:
        require(incomplete)
    assert "p1, p2" in str(caught.value)
    assert "p0" not in str(caught.value)
    assert caught.value.next_step == "pip install 'edgesdk[x]'"


def test_a_version_is_told_only_of_what_is_installed() -> None:
    assert installed_version("torch") is not None
    assert installed_version("a-package-nobody-has") is None


def test_no_toolchain_is_imported_before_it_is_used() -> None:
    script = (
        "import sys; from edgesdk.target import find_target\n"
        "for name in ('coreml', 'executorch', 'tflite'): find_target(name).toolchain()\n"
        "print(*{module.partition('.')[0] for module in sys.modules})"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "edgesdk_tflite" in said
    assert not HEAVY & set(said)


def test_a_toolchain_says_what_of_its_packages_is_here() -> None:
    listed = [("torch", "2.13.0", "computes"), ("a-package-nobody-has", "1", "is missed")]
    found = Toolchain.of("x", listed, "pip install x")
    assert [package.found is None for package in found.packages] == [False, True]
    assert [package.proven for package in found.packages] == ["2.13.0", "1"]
    assert (found.target, found.install) == ("x", "pip install x")


def test_a_capability_is_every_scheme_without_a_reason_against_it() -> None:
    found = Capability.of(lambda scheme: "too wide" if scheme == "fp32" else None)
    assert found.refused == {"fp32": "too wide"}
    assert {*found.schemes, *found.refused} == set(SCHEMES)
    assert "fp32" not in found.schemes
