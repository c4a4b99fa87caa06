"""Answers are kept as they come, so an interrupted run goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jobs import Squares

from edgesdk.errors import OutputError, TaskError
from edgesdk.workers.here import Here
from edgesdk.workers.ledger import Ledger, do_all
from edgesdk.workers.parcel import Parcel

ITEMS = [Parcel(values={"number": n}, tensors={"numbers": torch.tensor([n])}) for n in range(4)]


class Counting(Squares):
    """Squares that fail at one item, and tell which they did."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.did: list[int] = []

    def run(self, item: Parcel) -> Parcel:
        if item.values["number"] == self.fails_at:
            raise TaskError("it failed")
        self.did.append(item.values["number"])
        return super().run(item)


def done_by(job: Squares, folder: Path | None, of: str = "a") -> list[float]:
    found = do_all(
        Here(), job, ITEMS, ledger=Ledger(folder), of=of, on_done=lambda _: None
    )  # fmt: skip
    return [float(answer.tensors["squares"]) for answer in found]


def test_what_was_done_before_a_failure_is_not_done_again(tmp_path: Path) -> None:
    with pytest.raises(TaskError):
        done_by(Counting(fails_at=2), tmp_path)
    again = Counting()
    assert done_by(again, tmp_path) == [0.0, 1.0, 4.0, 9.0]
    assert again.did == [2, 3]
    third = Counting()
    assert done_by(third, tmp_path) == [0.0, 1.0, 4.0, 9.0]
    assert third.did == []


def test_another_job_and_other_threads_do_not_share_answers(tmp_path: Path) -> None:
    done_by(Counting(), tmp_path)
    other = Counting()
    done_by(other, tmp_path, of="b")
    assert other.did == [0, 1, 2, 3]
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        third = Counting()
        done_by(third, tmp_path)
        assert third.did == [0, 1, 2, 3]
    finally:
        torch.set_num_threads(before)


def test_progress_counts_what_was_kept(tmp_path: Path) -> None:
    with pytest.raises(TaskError):
        done_by(Counting(fails_at=2), tmp_path)
    shown: list[int] = []
    do_all(Here(), Counting(), ITEMS, ledger=Ledger(tmp_path), of="a", on_done=shown.append)
    assert shown == [2, 3, 4]


def test_a_folder_that_another_run_removed_is_made_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "gone")
    ledger.keep("key", Parcel(values=1))
    kept = ledger.find("key")
    assert kept is not None
    assert kept.values == 1


def test_without_a_folder_nothing_is_kept() -> None:
    ledger = Ledger(None)
    ledger.keep("key", Parcel(values=1))
    assert ledger.find("key") is None


def test_a_folder_that_cannot_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Ledger(tmp_path / "file" / "folder").keep("key", Parcel())
