"""Profiles as text: what is written reads back equal, and the packaged files are written so."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.device import DeviceProfile
from edgesdk.device_document import read_profile, with_sources
from edgesdk.device_files import load_device
from edgesdk.device_text import profile_text, toml_value
from edgesdk.precision_cost import KernelCost
from edgesdk.quantity import Quantity

ROOT = Path(__file__).parents[1]
PROFILES = sorted((ROOT / "device_profiles").glob("*.toml"))
BOARD = load_device("nucleo_l4r5zi")


def read_back(profile: DeviceProfile, folder: Path) -> DeviceProfile:
    path = folder / f"{profile.name}.toml"
    path.write_text(profile_text(profile), encoding="utf-8")
    return read_profile(path)


@pytest.mark.parametrize("path", PROFILES, ids=[path.stem for path in PROFILES])
def test_packaged_files_are_written_by_it(path: Path) -> None:
    assert profile_text(read_profile(path)) == path.read_text(encoding="utf-8")


def with_kernels(cost_source: str, kernel_source: str) -> DeviceProfile:
    def number(value: float, source: str) -> Quantity:
        return Quantity(value=value, source=source, kind="fitted")

    runtime = BOARD.runtime[0]
    kernel = KernelCost(
        mac_per_s=number(1e7, kernel_source),
        bytes_per_s=number(1e8, kernel_source),
        op_overhead_s=number(1e-6, kernel_source),
    )
    cost = replace(
        runtime.precisions["int8"],
        mac_per_s=number(3e7, cost_source),
        bytes_per_s=number(1e8, cost_source),
        op_overhead_s=number(1e-6, cost_source),
        kernels={"conv": kernel, "linear": kernel},
    )
    runtime = replace(runtime, precisions={**runtime.precisions, "int8": cost})
    return replace(BOARD, runtime=(runtime,))


@pytest.mark.parametrize("kernel_source", ["a fit", "another fit"])
def test_classes_of_kernels_read_back(kernel_source: str, tmp_path: Path) -> None:
    profile = with_kernels("a fit", kernel_source)
    assert read_back(profile, tmp_path) == profile


def test_a_source_that_numbers_share_is_written_once() -> None:
    text = profile_text(with_kernels("quite a fit", "quite a fit"))
    assert text.count("quite a fit") == 1
    assert "\nmac_per_s = 3e7\n" in text


def test_a_table_gives_its_source_to_its_bare_numbers_alone() -> None:
    own = {"value": 2.0, "source": "own", "kind": "measured"}
    table = {"source": "shared", "kind": "fitted", "mac_per_s": 1e9, "bytes_per_s": own,
             "kernels": {"conv": {"mac_per_s": 2e9}}}  # fmt: skip
    data = {"name": "x", "runtime": [{"threads": 1, "precisions": {"int8": table}}]}
    (runtime,) = with_sources(data)["runtime"]
    shared = {"source": "shared", "kind": "fitted"}
    assert runtime == {
        "threads": 1,
        "precisions": {
            "int8": {
                "mac_per_s": {"value": 1e9, **shared},
                "bytes_per_s": own,
                "kernels": {"conv": {"mac_per_s": {"value": 2e9, **shared}}},
            }
        },
    }


@given(
    value=st.floats(min_value=1e4, max_value=1e17),
    source=st.text(min_size=1).filter(str.strip),
    notes=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
)
def test_any_number_and_text_read_back(
    value: float, source: str, notes: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    runtime = BOARD.runtime[0]
    rate = Quantity(value=value, source=source, kind="measured")
    cost = replace(runtime.precisions["fp32"], mac_per_s=rate)
    profile = replace(
        BOARD, notes=tuple(notes), runtime=(replace(runtime, precisions={"fp32": cost}),)
    )
    assert read_back(profile, tmp_path_factory.mktemp("profile")) == profile


@pytest.mark.parametrize(
    ("value", "text"),
    [(6e9, "6e9"), (1048576.0, "1048576"), (2.19e-6, "2.19e-6"), (3, "3"), (1 / 3, repr(1 / 3)),
     (True, "true"), ("a\"b\n\x7f", '"a\\"b\\n\\u007f"'), ([1, "x"], '[1, "x"]'),
     ({"a b": 1}, '{ "a b" = 1 }')],
)  # fmt: skip
def test_values(value: object, text: str) -> None:
    assert toml_value(value) == text
