"""What ``integrate`` writes, refuses and survives, for every app."""

from __future__ import annotations

import ast
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift
from hypothesis import given, settings
from hypothesis import strategies as st
from sealed import ARTIFACTS, ROOT, changed, seal, sealed

from edgesdk.artifact import read_manifest
from edgesdk.errors import ArtifactError, OutputError, UsageError
from edgesdk.integrating.generation import APPS, integrate

SERVED = {
    "digits_microcontroller": {"microcontroller"},
    "digits_phone": {"android", "linux", "web"},
    "digits_board": {"android", "ios", "linux"},
}
PAIRS = [(artifact, app) for artifact, apps in SERVED.items() for app in sorted(apps)]
# The apps of this repository, and what each is made from.
STORED = {
    "android": "digits_phone",
    "ios": "digits_board",
    "linux": "digits_phone",
    "microcontroller": "digits_microcontroller",
    "web": "digits_phone",
}
# Too large to keep twice: the model itself, as a file and as an array.
NOT_STORED = {"model.tflite", "model.pte", "model_data.cc"}
GRAMMARS = {
    ".kt": tree_sitter_kotlin.language(),
    ".kts": tree_sitter_kotlin.language(),
    ".swift": tree_sitter_swift.language(),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.toolchain
@pytest.mark.parametrize("app", STORED)
def test_the_apps_of_this_repository_are_what_is_generated(app: str, tmp_path: Path) -> None:
    integrate(ARTIFACTS / STORED[app], app, tmp_path / "out")
    generated = contents(tmp_path / "out")
    kept = {name: data for name, data in generated.items() if Path(name).name not in NOT_STORED}
    assert len(kept) < len(generated), "every app has a model"
    assert contents(ROOT / "apps" / app) == kept


@pytest.mark.toolchain
@pytest.mark.parametrize(("artifact", "app"), PAIRS)
def test_equal_artifacts_give_equal_apps(artifact: str, app: str, tmp_path: Path) -> None:
    first = integrate(ARTIFACTS / artifact, app, tmp_path / "a")
    integrate(ARTIFACTS / artifact, app, tmp_path / "b")
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    assert list(files) == sorted(first.files)
    readme = files["README.md"].decode()
    assert ("Not built here" in readme) != APPS[app].is_built
    for name, data in files.items():
        if name.endswith((".kt", ".kts", ".swift")):
            assert not syntax_errors(name, data), name


@pytest.mark.parametrize("artifact", SERVED)
@pytest.mark.parametrize("app", sorted(APPS))
def test_an_app_that_cannot_hold_the_artifact_is_refused_naming_those_that_can(
    artifact: str, app: str, tmp_path: Path
) -> None:
    if app in SERVED[artifact]:
        return
    with pytest.raises(UsageError) as refusal:
        integrate(ARTIFACTS / artifact, app, tmp_path / "out")
    assert set(refusal.value.details["apps"]) == SERVED[artifact]
    assert all(name in str(refusal.value) for name in SERVED[artifact])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("app", "delegate", "is_taken"),
    [
        ("ios", "xnnpack", True),
        ("ios", "coreml", True),
        ("ios", "vulkan", False),
        ("android", "xnnpack", True),
        ("android", "vulkan", False),
        ("linux", "vulkan", False),
    ],
)
def test_an_app_takes_a_file_whose_delegate_its_library_brings(
    app: str, delegate: str, is_taken: bool
) -> None:
    tensor = SimpleNamespace(name="x", dtype="float32", scale=None)
    manifest = SimpleNamespace(
        runtime="executorch", delegate=delegate, inputs=(tensor,), outputs=(tensor,)
    )
    reason = APPS[app].refuses(SimpleNamespace(manifest=manifest))
    assert (reason is None) == is_taken
    assert is_taken or delegate in str(reason)


def test_an_unknown_app_lists_the_near_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'android'"):
        integrate(ARTIFACTS / "digits_phone", "androd", tmp_path / "out")


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        integrate(ARTIFACTS / "digits_phone", "web", tmp_path / "out")


def test_a_damaged_artifact_gives_no_app(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ARTIFACTS / "digits_phone", tmp_path / "artifact"))
    model = folder / "model.tflite"
    model.write_bytes(model.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ArtifactError, match="SHA-256"):
        integrate(folder, "web", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        ("inputs", "shape", [1, 8, 8, 0]),
        ("inputs", "shape", [1, 8, 8, 1 << 40]),
        ("inputs", "from_torch", [0, 0, 1, 2]),
        ("inputs", "dtype", "float32; rm -rf"),
        ("inputs", "scale", 0.0),
        ("inputs", "zero_point", 1000),
        ("input_specs", "std", [0.0]),
        ("input_specs", "mean", [0.1, 0.2, 0.3]),
        ("outputs", "labels", ["one", "two"]),
        ("outputs", "shape", [1, 11]),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    where: str, field: str, value: Any, tmp_path: Path
) -> None:
    folder = sealed(tmp_path / "artifact", like="digits_microcontroller")
    manifest = json.loads((folder / "manifest.json").read_text())
    entries = manifest[where]
    entries[0][field] = value
    seal(folder, changed(read_manifest(folder), **{where: entries}))
    with pytest.raises(ArtifactError):
        integrate(folder, "microcontroller", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../model.tflite", "/etc/passwd", "a/../../x"])
def test_a_model_outside_the_artifact_is_refused(name: str, tmp_path: Path) -> None:
    folder = sealed(tmp_path / "artifact", like="digits_phone")
    seal(folder, replace(read_manifest(folder), files=(name,)))
    with pytest.raises(ArtifactError):
        integrate(folder, "linux", tmp_path / "out")


HOSTILE = [
    '"; rm -rf / #', "'''", '"""', "\\", "\\n", "${x}", "\\(x)", "*/", "//", "\n", "<!--",
    "</script>", "]]", "[[ 7 * 7 ]]", "[% raise %]", "??/", "é", "数", "\u2028", "\x00", "",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12))


@settings(max_examples=12)
@given(labels=st.lists(TEXTS, min_size=10, max_size=10), names=st.tuples(TEXTS, TEXTS, TEXTS))
def test_no_name_and_no_label_breaks_out_of_the_code(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], names: tuple[str, str, str]
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    for like, apps in (("digits_phone", ("android", "linux", "web")), ("digits_board", ("ios",))):
        artifact = hostile(folder / like, like, labels, names)
        for app in apps:
            out = folder / f"out-{app}"
            integrate(artifact, app, out)
            clean = contents(ROOT / "apps" / app)
            # Only the package's folder is named after the task.
            assert len(contents(out)) == len(clean) + 1
            assert_labels(app, out, labels)


def hostile(folder: Path, like: str, labels: list[str], names: tuple[str, str, str]) -> Path:
    """Return an artifact whose task, input and output have those names."""
    task, taken, given_ = names
    manifest = read_manifest(ARTIFACTS / like)
    [input_tensor], [input_spec] = manifest.inputs, manifest.input_specs
    [output_tensor], [output_spec] = manifest.outputs, manifest.output_specs
    return sealed(
        folder,
        like=like,
        task=task,
        device=task,
        inputs=[(replace(input_tensor, name=taken), replace(input_spec, name=taken))],
        outputs=[
            (
                replace(output_tensor, name=given_, labels=tuple(labels)),
                replace(output_spec, name=given_, labels=tuple(labels)),
            )
        ],
    )


def assert_labels(app: str, out: Path, labels: list[str]) -> None:
    """Every source parses, and the labels in it are the labels."""
    for name, data in contents(out).items():
        if name.endswith((".kt", ".kts", ".swift")):
            assert not syntax_errors(name, data), name
        if name.endswith(".py"):
            ast.parse(data)
    if app == "linux":
        [model] = out.glob("*/model.py")
        trees = [n for n in ast.parse(model.read_text()).body if isinstance(n, ast.AnnAssign)]
        [found] = [ast.literal_eval(n.value) for n in trees if n.value is not None]
        assert list(found) == labels
    if app == "android":
        [constants] = out.rglob("Constants.kt")
        [block] = re.findall(r"listOf\(\n((?:    \".*\",\n)+)\)", constants.read_text())
        # What our literals use of Kotlin's escapes are JSON's, too.
        assert [json.loads(line.strip().rstrip(",")) for line in block.splitlines()] == labels
    if app == "web":
        text = (out / "src/constants.ts").read_text()
        [block] = re.findall(r"_LABELS: readonly string\[\] = \[\n(.*?)\n\];", text, re.DOTALL)
        assert [json.loads(line.strip().rstrip(",")) for line in block.split("\n")] == labels


def syntax_errors(name: str, data: bytes) -> list[str]:
    """Return what the language's grammar cannot read."""
    language = tree_sitter.Language(GRAMMARS[Path(name).suffix])
    found: list[str] = []
    nodes = [tree_sitter.Parser(language).parse(data).root_node]
    while nodes:
        node = nodes.pop()
        if node.is_error or node.is_missing:
            found.append(f"{node.start_point}: {data[node.start_byte : node.end_byte][:60]!r}")
        nodes.extend(node.children)
    return found


def test_the_grammars_notice_a_broken_string() -> None:
    assert syntax_errors("a.kt", b'val a = listOf(\n    "x"; rm",\n)\n')
    assert syntax_errors("a.swift", b'let a = [\n    "x"; rm",\n]\n')
