"""Does ``profile --on local`` agree with the runtimes' own clocks?

    edgesdk compile TASK --device host --target tflite ... -o a
    edgesdk compile TASK --device host --target executorch ... -o b
    python benchmarks/profile_agreement.py a b

An artifact for LiteRT is timed in turn by the agent and by the wheel's ``litert-benchmark``, each
in a process of its own. One for ExecuTorch is timed by the agent's clock and by the runtime's own
event ``Method::execute``, on the same inferences; what the binding does around it, handing tensors
over, is in the agent's clock alone. The ratio is the median of the pairs': on a busy machine times
have two humps, and each column's median may lie in another one. Exit code 1 where it is more than
5 % from 1. litert-benchmark rounds to 0.01 ms, so a model has to take 1 ms at least.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from edgesdk.artifact import Manifest, inside, read_manifest
from edgesdk.profiling.agent.artifact import read_golden
from edgesdk.profiling.agent.artifact import read_manifest as read_plain
from edgesdk.profiling.agent.sessions import ExecuTorch
from edgesdk.profiling.agent.tensors import encode
from edgesdk.profiling.agent.timing import time_runs
from edgesdk.profiling.bench import Bench
from edgesdk.profiling.job import Job
from edgesdk.profiling.local import measure
from edgesdk.progress import Silent

_WITHIN = 0.05
_RUNS = 200


def litert_pairs(folder: Path, manifest: Manifest, rounds: int) -> list[tuple[float, float]]:
    """Return the medians of the agent and of litert-benchmark, in ms, of each round."""
    model = str(inside(folder, manifest.files[0]))
    pairs = []
    for _ in range(rounds):
        bench = Bench(on="local")
        job = Job(folder=folder, manifest=manifest, progress=Silent(), bench=bench, hooks=False)
        ours = measure("", job).p50_ms
        with tempfile.TemporaryDirectory() as scratch:
            result = Path(scratch) / "result.json"
            words = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model"]
            words += ["--model", model, "--num_runs", str(_RUNS), "--result_json", str(result)]
            words += ["--num_threads", str(manifest.threads)]
            subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - our own words
            theirs = _find(json.loads(result.read_text(encoding="utf-8")), "median_ms")
        pairs.append((ours, theirs))
    return pairs


def _find(document: object, key: str) -> float:
    """Return the number under a key anywhere in a JSON document; ``KeyError`` without one."""
    if isinstance(document, dict):
        if key in document:
            return float(document[key])
        for value in document.values():
            try:
                return _find(value, key)
            except KeyError:
                continue
    raise KeyError(key)


def executorch_pairs(folder: Path, manifest: Manifest) -> list[tuple[float, float]]:
    """Return the agent's and the runtime's own time of each inference, in ms."""
    from executorch.devtools import Inspector

    plain = read_plain(folder)
    session = ExecuTorch(plain, folder, manifest.threads, hooks=True)
    golden, _ = read_golden(folder / "golden.safetensors")
    batch = [value[: manifest.batch_size] for value in golden]
    ours = time_runs(session.bind(encode(batch, plain["inputs"])[0]), _RUNS)
    with tempfile.TemporaryDirectory() as scratch:
        dump = os.path.join(scratch, "dump.etdp")
        session.write_dump(dump)
        blocks = Inspector(etdump_path=dump).event_blocks
    [event] = [e for b in blocks for e in b.events if e.name == "Method::execute"]
    return list(zip(ours, event.perf_data.raw, strict=True))


def main() -> int:
    """Print one line per artifact and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    disagree = False
    for folder in options.artifacts:
        manifest = read_manifest(folder)
        if manifest.runtime == "litert":
            pairs = litert_pairs(folder, manifest, options.rounds)
        else:
            pairs = executorch_pairs(folder, manifest)
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        disagree = disagree or abs(ratio - 1) > _WITHIN or theirs < 1
        told = f"{ours:.3f} ms, its own clock {theirs:.3f} ms, ratio {ratio:.3f}"
        print(f"{folder} {manifest.runtime}: {told}")
    return int(disagree)


if __name__ == "__main__":
    sys.exit(main())
