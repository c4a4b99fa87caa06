import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.artifact import (
    GOLDEN,
    MANIFEST,
    MANIFEST_SHA256,
    PLAN,
    REPORT,
    Manifest,
    Parity,
    files_under,
    inside,
    manifest_seal,
    read_manifest,
    sha256_of,
    size_bytes,
)
from edgesdk.document import to_json
from edgesdk.errors import ArtifactError

BUNDLE = "model.bundle"
CONTENT = {
    "model.bin": b"\x00\x01\x02 weights",
    f"{BUNDLE}/spec": b"graph",
    f"{BUNDLE}/data/weights": b"\xff" * 40,
    PLAN: b"{}\n",
    GOLDEN: b"vectors",
    REPORT: b"# Report\n",
}


def manifest_for(folder: Path, **changes: Any) -> Manifest:
    names = [path.relative_to(folder).as_posix() for path in files_under(folder)]
    fields: dict[str, Any] = {
        "task": "t",
        "device": "d",
        "target": "x",
        "delegate": "",
        "runtime": "r",
        "minimum_runtime": "1",
        "host_runtime": None,
        "threads": 1,
        "unit": "cpu",
        "scheme": "fp32",
        "batch_size": 1,
        "files": ("model.bin", BUNDLE),
        "sha256": {name: sha256_of(folder / name) for name in names},
        "plan_sha256": sha256_of(folder / PLAN),
        "parity": Parity(
            status="not verified",
            runtime="none",
            samples=0,
            sqnr_db=None,
            maximum_error=None,
            top1_agreement=None,
            checks=(),
        ),
    }
    fields |= dict.fromkeys(("inputs", "outputs", "input_specs", "output_specs", "operators"), ())
    fields |= {
        name: {} for name in ("baseline", "predicted", "verified", "interpreted", "measured")
    }
    return Manifest(**{**fields, "tool_versions": {}, "budget": (), **changes})


def test_files_that_only_this_machine_runs_are_sealed_too(tmp_path: Path) -> None:
    for name, content in {**CONTENT, "before.bin": b"the network before its compiler"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    whole = manifest_for(tmp_path, host_files=("before.bin",))
    write_manifest(tmp_path, to_json(whole))
    assert read_manifest(tmp_path) == whole
    (tmp_path / "before.bin").unlink()
    sealed = {name: digest for name, digest in whole.sha256.items() if name != "before.bin"}
    write_manifest(tmp_path, to_json(replace(whole, sha256=sealed)))
    with pytest.raises(ArtifactError, match=r"before\.bin belongs to the artifact"):
        read_manifest(tmp_path)


def write_manifest(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder))


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the manifest as someone would who also seals it anew."""
    data = json.loads((folder / MANIFEST).read_text())
    change(data)
    write_manifest(folder, json.dumps(data))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder, to_json(manifest_for(folder)))
    return folder


def test_a_whole_artifact_is_read(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    assert set(manifest.sha256) == set(CONTENT)
    assert manifest.files == ("model.bin", BUNDLE)


def test_it_may_be_moved_and_reached_by_a_link(artifact: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(artifact)
    assert read_manifest(link) == read_manifest(artifact)
    moved = artifact.rename(tmp_path / "elsewhere")
    assert read_manifest(moved).task == "t"


@given(data=st.data())
@settings(max_examples=150)
def test_one_changed_byte_anywhere_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("artifact")
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder, to_json(manifest_for(folder)))
    path = data.draw(st.sampled_from(files_under(folder)))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_manifest(folder)
    assert caught.value.exit_code == 8


@pytest.mark.parametrize("name", [*CONTENT, MANIFEST, MANIFEST_SHA256])
def test_a_missing_file_is_noticed_by_name(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=name.rsplit("/", maxsplit=1)[-1]):
        read_manifest(artifact)


@pytest.mark.parametrize("name", [*CONTENT, MANIFEST, MANIFEST_SHA256])
def test_a_truncated_file_is_noticed(artifact: Path, name: str) -> None:
    (artifact / name).write_bytes((artifact / name).read_bytes()[:-1])
    with pytest.raises(ArtifactError):
        read_manifest(artifact)


@pytest.mark.parametrize("name", ["extra.bin", ".hidden", f"{BUNDLE}/extra", "new/extra"])
def test_an_extra_file_is_noticed(artifact: Path, name: str) -> None:
    (artifact / name).parent.mkdir(exist_ok=True)
    (artifact / name).write_bytes(b"")
    with pytest.raises(ArtifactError, match="in the folder but not in the manifest"):
        read_manifest(artifact)


def test_two_files_that_changed_places_are_noticed(artifact: Path) -> None:
    (artifact / "model.bin").rename(artifact / "other")
    (artifact / REPORT).rename(artifact / "model.bin")
    (artifact / "other").rename(artifact / REPORT)
    with pytest.raises(ArtifactError, match="differs"):
        read_manifest(artifact)


def test_a_file_in_place_of_a_bundle_is_noticed(artifact: Path) -> None:
    shutil.rmtree(artifact / BUNDLE)
    (artifact / BUNDLE).write_bytes(b"graph")
    with pytest.raises(ArtifactError, match="bundle"):
        read_manifest(artifact)


@pytest.mark.parametrize(
    "name",
    ["../secret", "a/../../secret", "/etc/passwd", "..", "a\\..\\b", "a\0b", "x" * 5000],
    ids=["parent", "parent inside", "absolute", "dots", "backslash", "nul", "long"],
)
@pytest.mark.parametrize("field", ["sha256", "files"])
def test_a_name_that_leaves_the_folder_is_refused(artifact: Path, field: str, name: str) -> None:
    (artifact.parent / "secret").write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()

    def add(data: dict[str, Any]) -> None:
        if field == "sha256":
            data["sha256"][name] = digest
        else:
            data["files"].append(name)

    change_manifest(artifact, add)
    with pytest.raises(ArtifactError):
        read_manifest(artifact)


@given(st.text(max_size=30))
def test_inside_never_leaves_the_folder(name: str) -> None:
    folder = Path("/artifact")
    try:
        path = inside(folder, name)
    except ArtifactError:
        return
    assert os.path.normpath(path).startswith("/artifact")


def test_a_detour_is_refused_even_where_it_comes_back(artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="not inside"):
        inside(artifact, f"{BUNDLE}/../model.bin")


def test_a_link_out_of_the_folder_is_refused(artifact: Path) -> None:
    secret = artifact.parent / "secret"
    secret.write_bytes(CONTENT["model.bin"])
    (artifact / "model.bin").unlink()
    (artifact / "model.bin").symlink_to(secret)
    with pytest.raises(ArtifactError, match="link"):
        read_manifest(artifact)


def test_a_linked_folder_out_of_the_artifact_is_refused(artifact: Path) -> None:
    outside = artifact.parent / "outside"
    (artifact / BUNDLE).rename(outside)
    (artifact / BUNDLE).symlink_to(outside)
    with pytest.raises(ArtifactError):
        read_manifest(artifact)


@pytest.mark.parametrize("target", ["/", "nowhere", "loop", BUNDLE])
def test_an_extra_link_is_refused_wherever_it_leads(artifact: Path, target: str) -> None:
    (artifact / "loop").symlink_to(target)
    with pytest.raises(ArtifactError):
        read_manifest(artifact)


def test_a_linked_manifest_is_refused(artifact: Path) -> None:
    (artifact / MANIFEST).rename(artifact.parent / "manifest")
    (artifact / MANIFEST).symlink_to(artifact.parent / "manifest")
    with pytest.raises(ArtifactError, match="link"):
        read_manifest(artifact)


def test_a_pipe_is_refused_and_not_waited_for(artifact: Path) -> None:
    os.mkfifo(artifact / "pipe")
    with pytest.raises(ArtifactError, match="not in the manifest"):
        read_manifest(artifact)


def test_a_newer_manifest_says_to_upgrade(artifact: Path) -> None:
    change_manifest(artifact, lambda data: data.update(schema_version=2, novelty=True))
    with pytest.raises(ArtifactError, match="upgrade edgesdk"):
        read_manifest(artifact)


def test_an_unknown_key_in_the_manifest_is_refused(artifact: Path) -> None:
    change_manifest(artifact, lambda data: data.update(sheme="int8"))
    with pytest.raises(ArtifactError, match="did you mean scheme"):
        read_manifest(artifact)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(files=[]),
        lambda data: data.update(files=["model.bin", "gone.bin"]),
        lambda data: data.update(files=["model"]),
        lambda data: data.update(plan_sha256="0" * 64),
    ],
    ids=["no files", "a file that is not there", "a prefix of a file", "another plan"],
)
def test_a_manifest_that_contradicts_the_folder_is_refused(
    artifact: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    change_manifest(artifact, change)
    with pytest.raises(ArtifactError):
        read_manifest(artifact)


@pytest.mark.parametrize("name", [PLAN, GOLDEN, "model.bin"])
def test_a_file_left_out_of_folder_and_manifest_is_missed(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    change_manifest(artifact, lambda data: data["sha256"].pop(name))
    with pytest.raises(ArtifactError, match=name):
        read_manifest(artifact)


def test_what_is_no_artifact_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, tmp_path / "nothing", tmp_path):
        with pytest.raises(ArtifactError):
            read_manifest(path)
    with pytest.raises(ArtifactError, match="edgesdk compile"):
        read_manifest(file)


def test_the_seal_is_what_sha256sum_writes(artifact: Path) -> None:
    digest = hashlib.sha256((artifact / MANIFEST).read_bytes()).hexdigest()
    assert (artifact / MANIFEST_SHA256).read_text() == f"{digest}  manifest.json\n"


def test_the_hash_of_a_file_is_sha256(tmp_path: Path) -> None:
    content = os.urandom(3 * (1 << 20) + 17)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_the_hash_of_a_folder_covers_names_and_bytes(tmp_path: Path) -> None:
    def digest_of(files: dict[str, bytes]) -> str:
        folder = tmp_path / "folder"
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return sha256_of(folder)

    variants = [
        {"a": b"1", "b": b"2"},
        {"a": b"2", "b": b"1"},
        {"a": b"1", "c": b"2"},
        {"a": b"1", "b/b": b"2"},
        {"a": b"1"},
        {"ab": b"12"},
    ]
    assert len({digest_of(files) for files in variants}) == len(variants)
    assert digest_of(variants[0]) == digest_of(dict(reversed(variants[0].items())))


def test_size_counts_bundles_whole(artifact: Path) -> None:
    assert size_bytes(artifact, ("model.bin",)) == len(CONTENT["model.bin"])
    assert size_bytes(artifact, ("model.bin", BUNDLE)) == len(CONTENT["model.bin"]) + 5 + 40
