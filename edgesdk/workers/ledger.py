"""A job's answers, kept as they come: an interrupted run goes on where it was."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from edgesdk.cache import key_of
from edgesdk.errors import OutputError
from edgesdk.workers.job import Job, Workers
from edgesdk.workers.parcel import Parcel


class Ledger:
    """Answers by what was asked, a file each, in a scratch folder of the cache.

    Files appear whole, so runs that share the folder do not disturb each other, and a run that is
    killed leaves what was done. ``folder`` None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def find(self, key: str) -> Parcel | None:
        """Return the answer kept for a key, None where there is none."""
        try:
            return None if self._folder is None else Parcel.from_bytes(self._file(key).read_bytes())
        except FileNotFoundError:
            return None

    def keep(self, key: str, answer: Parcel) -> None:
        """Keep an answer; ``OutputError`` where it cannot be written."""
        if self._folder is None:
            return
        try:
            # Another run of the same task may have finished and removed the folder meanwhile.
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as partial:
                partial.write(answer.to_bytes())
            os.replace(partial.name, self._file(key))
        except OSError as problem:
            raise OutputError(
                f"the cache {self._folder} cannot be written: {problem.strerror}",
                next_step="free some space, or set EDGESDK_CACHE to a folder that can be written",
            ) from problem

    def _file(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / key


def do_all(
    workers: Workers, job: Job, items: Sequence[Parcel], *, ledger: Ledger, of: str,
    on_done: Callable[[int], None],
) -> list[Parcel]:  # fmt: skip
    """Return the answer of every item, in their order: those of the ledger, the others computed.

    ``of`` says in the ledger's keys what the job is, besides an item's values. ``on_done`` is told
    how many items are done.
    """
    keys = [key_of(of, workers.threads(job), item.values) for item in items]
    answers = {n: kept for n, key in enumerate(keys) if (kept := ledger.find(key)) is not None}
    missing = [number for number in range(len(items)) if number not in answers]

    def done(place: int, answer: Parcel) -> None:
        number = missing[place]
        ledger.keep(keys[number], answer)
        answers[number] = answer
        on_done(len(answers))

    on_done(len(answers))
    if missing:
        workers.map(job, [items[number] for number in missing], done)
    return [answers[number] for number in range(len(items))]
