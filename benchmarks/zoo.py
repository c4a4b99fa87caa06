"""Compile real architectures with random weights on every target and scheme, and count.

    python benchmarks/zoo.py [--only NAME ...] [--targets T ...] [--schemes S ...] [--pruned]
                             [--out FILE] [--limit-s 120] [--again STATUS ...]

Each case is one line of JSON in the file, written as soon as it is known; a case that is there is
not run again, so a killed run goes on. ``--again refused wrong`` runs those anew that ended so.
The cases run in a second process with a time limit each; where it dies, one case has crashed and
a new process goes on with the next. Each ends as one of:

- ``verified`` or ``interpreted``: emitted, re-opened, run, and as close to PyTorch as it has to be;
- ``refused``: an error that says what is not possible and what to do instead;
- ``wrong``: a file was written and the gate did not let it pass, so nobody would have got it;
- ``crashed``: anything else, a traceback, a crash or the time limit. That is a defect.

``--pruned`` halves the channels of everything that can lose channels first, and says "refused"
where that left more than half of the multiplications. The weights are
random, so nothing here is about accuracy. Prints the table by target and scheme.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zoo_case import DEVICES, run_case
from zoo_networks import OWN
from zoo_transformers import ARCHITECTURES

from edgesdk.scheme import SCHEMES

Row = dict[str, Any]
Case = tuple[str, str, str, bool]
"""Architecture, target, scheme, and whether it is pruned first."""


def main() -> None:
    """Run the cases that the file does not hold yet, then print the table of all it holds."""
    names = [*OWN, *ARCHITECTURES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--targets", nargs="+", choices=tuple(DEVICES), default=tuple(DEVICES))
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES)
    parser.add_argument("--pruned", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--limit-s", type=float, default=120.0)
    parser.add_argument("--again", nargs="+", default=(), choices=("refused", "wrong", "crashed"))
    options = parser.parse_args()
    rows = read_rows(options.out)
    cases: list[Case] = [
        (name, target, scheme, options.pruned)
        for target in options.targets
        for scheme in options.schemes
        for name in options.only
    ]
    with Worker() as worker:
        for case in cases:
            if case in rows and rows[case]["status"] not in options.again:
                continue
            rows[case] = row = worker.run(case, limit_s=options.limit_s)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row['status']:<12} {row['seconds']:6.1f} s  {' '.join(map(str, case))}")
    print(table(rows.values()))


def read_rows(path: Path) -> dict[Case, Row]:
    """Return the last row of each case of an earlier run; a torn line is dropped."""
    rows: dict[Case, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["name"], row["target"], row["scheme"], row["pruned"]] = row
    return rows


def table(rows: Iterable[Row]) -> str:
    """Return how many cases ended how, by target and scheme, and what all but the proven said."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    told = []
    for row in rows:
        scheme = row["scheme"] + (", pruned" if row["pruned"] else "")
        counts.setdefault((row["target"], scheme), Counter())[row["status"]] += 1
        if row["status"] not in ("verified", "interpreted"):
            case = f"{row['target']} {scheme} {row['name']}"
            told.append(f"- {case}: {row['status']}: {row['detail']}")
    lines = ["| target | scheme | cases | proven | refused | wrong | crashed |", "|" + "---|" * 7]
    for (target, scheme), count in counts.items():
        total, proven = count.total(), count["verified"] + count["interpreted"]
        cells = [target, scheme, total, f"{proven} ({100 * proven / total:.0f} %)"]
        cells += [count[status] for status in ("refused", "wrong", "crashed")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, "", *told])


class Worker:
    """A process that runs one case after the other; a new one takes its place when it dies."""

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def run(self, case: Case, *, limit_s: float) -> Row:
        """Return the row of a case, which may crash or take too long."""
        start = time.monotonic()
        name, target, scheme, pruned = case
        row: Row = {"name": name, "target": target, "scheme": scheme, "pruned": pruned}
        try:
            self._connection.send(case)
            done = self._connection.poll(limit_s)
            row |= self._connection.recv() if done else _late(limit_s)
        except (EOFError, OSError):
            row |= {"status": "crashed", "detail": self._last_words()}
            done = False
        if not done:
            self._stop()
            self._start()
        return row | {"seconds": round(time.monotonic() - start, 1)}

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,))
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _last_words(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _late(limit_s: float) -> Row:
    return {"status": "crashed", "detail": f"not done after {limit_s:g} s"}


def serve(cases: Connection) -> None:
    """Answer each case with how it ended, until nobody asks any more."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    while True:
        try:
            name, target, scheme, pruned = cases.recv()
        except EOFError:
            return
        cases.send(run_case(name, target, scheme, pruned=pruned))


if __name__ == "__main__":
    main()
