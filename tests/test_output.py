import errno
import os
from pathlib import Path

import pytest

from edgesdk.errors import OutputError
from edgesdk.output import check_output, disk_errors, write_file, writing

NOT_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def entries(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_new_name_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_output(Path("out")) == tmp_path / "out"
    assert check_output(Path("a/b/out")) == tmp_path / "a/b/out"
    assert entries(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
def test_nothing_is_ever_overwritten(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("precious")
    elif kind == "folder":
        out.mkdir()
    else:
        out.symlink_to(tmp_path if kind == "link" else tmp_path / "nowhere")
    before = entries(tmp_path)
    with pytest.raises(OutputError, match="exists already") as caught:
        check_output(out)
    assert caught.value.exit_code == 11
    assert entries(tmp_path) == before


def test_the_current_folder_and_the_root_exist() -> None:
    for path in (Path(), Path("/")):
        with pytest.raises(OutputError, match="exists already"):
            check_output(path)


def test_a_file_is_no_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="not a writable folder"):
        check_output(tmp_path / "file" / "out")


def test_a_dangling_link_is_no_parent(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="not a writable folder"):
        check_output(tmp_path / "link" / "out")


def test_a_name_that_is_too_long_is_refused_before_work_starts(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / ("x" * 300))


def test_the_longest_name_still_works(tmp_path: Path) -> None:
    out = tmp_path / ("x" * 255)
    with writing(check_output(out)) as folder:
        (folder / "file").write_text("1")
    assert (out / "file").read_text() == "1"


@NOT_ROOT
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_parent_that_cannot_be_written_is_refused(tmp_path: Path, mode: int) -> None:
    parent = tmp_path / "parent"
    parent.mkdir(mode=mode)
    for out in (parent / "out", parent / "deep" / "out"):
        with pytest.raises(OutputError, match="writ"):
            check_output(out)


def test_a_parent_that_may_not_be_searched_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "lstat", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        check_output(tmp_path / "out")


def test_a_read_only_parent_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    with pytest.raises(OutputError, match="not a writable folder"):
        check_output(tmp_path / "out")


def test_what_is_written_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with writing(out) as folder:
        (folder / "file").write_text("1")
        assert not out.exists()
        assert folder.stat().st_dev == tmp_path.stat().st_dev
    assert entries(tmp_path) == ["a", "a/out", "a/out/file"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_folder_has_ordinary_rights(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with writing(tmp_path / "out"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, SystemExit, OSError])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, problem: type[BaseException]) -> None:
    (tmp_path / "neighbour").write_text("precious")
    with pytest.raises(problem), writing(tmp_path / "a" / "b" / "out") as folder:  # noqa: PT012
        (folder / "half").write_text("half")
        (folder / "nested").mkdir()
        raise problem
    assert entries(tmp_path) == ["neighbour"]


def test_a_failure_leaves_the_parents_of_others(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with pytest.raises(RuntimeError), writing(out):  # noqa: PT012
        (tmp_path / "a" / "theirs").write_text("precious")
        raise RuntimeError
    assert entries(tmp_path) == ["a", "a/theirs"]


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_appears_meanwhile_is_not_lost(tmp_path: Path, is_folder: bool) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="exists already"), writing(out) as folder:  # noqa: PT012
        (folder / "file").write_text("ours")
        if is_folder:
            out.mkdir()
            (out / "file").write_text("theirs")
        else:
            out.write_text("theirs")
    assert (out / "file" if is_folder else out).read_text() == "theirs"
    assert entries(tmp_path) == (["out", "out/file"] if is_folder else ["out"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left") as caught, writing(tmp_path / "out"):
        Path("/dev/full").write_text("x" * 10_000)
    assert "MB free" in caught.value.found
    assert "free some space" in str(caught.value.next_step)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_every_failing_disk_is_an_output_error(tmp_path: Path, code: int) -> None:
    with pytest.raises(OutputError, match=str(tmp_path)), disk_errors(tmp_path / "no" / "where"):
        raise OSError(code, os.strerror(code))


def test_another_failure_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "nothing").read_text()


def test_a_full_disk_before_the_first_byte_is_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OutputError, match="No space left"), writing(tmp_path / "a" / "out"):
        pass


def test_a_right_that_is_missing_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), writing(tmp_path / "out"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert entries(tmp_path) == []


def test_a_text_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.json"
    write_file(path, "Größe\n")
    assert path.read_bytes() == "Größe\n".encode()
    with pytest.raises(OutputError, match="exists already"):
        write_file(path, "other")
    assert entries(tmp_path) == ["new", "new/plan.json"]
    assert path.read_text(encoding="utf-8") == "Größe\n"


def test_a_text_file_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left"):
        write_file(tmp_path / "new" / "plan.json", "text")
    assert entries(tmp_path) == []
