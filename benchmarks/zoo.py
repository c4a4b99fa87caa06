"""Compile real architectures with random weights on every target and scheme, and count.

    python benchmarks/zoo.py [--only NAME ...] [--targets T ...] [--schemes S ...] [--out FILE]
                             [--limit-s 300]

Each case is one line of JSON in the file, written as soon as it is known; a case that is there is
not run again, so a killed run goes on. Each runs in a process of its own, with a time limit, and
ends as one of:

- ``verified`` or ``interpreted``: emitted, re-opened, run, and as close to PyTorch as it has to be;
- ``refused``: an error that says what is not possible and what to do instead;
- ``stopped``: a file was written and the gate did not let it pass, so nobody would have got it;
- ``failed``: anything else, a crash or the time limit. That is a defect.

The weights are random, so nothing here is about accuracy. Prints the table by target and scheme.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from zoo_networks import OWN
from zoo_transformers import ARCHITECTURES, Architecture

from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.errors import EdgeSDKError, ParityError
from edgesdk.parity import compare, gate
from edgesdk.running.adapter import artifact_predict
from edgesdk.running.process import ArtifactProcess
from edgesdk.scheme import SCHEMES, Scheme
from edgesdk.target import find_target
from edgesdk.task import InputSpec, OutputSpec, Tensors, output_tensors

DEVICES: Mapping[str, str] = {
    "executorch": "raspberry_pi_5",
    "tflite": "raspberry_pi_5",
    "coreml": "iphone_15_pro",
    "onnx": "jetson_orin_nano",
}
_CALIBRATION, _COMPARED = 16, 8
_LARGEST_TEXT = 600
Row = dict[str, Any]


def main() -> None:
    """Run the cases that the file does not hold yet, then print the table of all it holds."""
    names = [*OWN, *ARCHITECTURES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--targets", nargs="+", choices=tuple(DEVICES), default=tuple(DEVICES))
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES)
    parser.add_argument("--out", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--limit-s", type=float, default=300.0)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        name, target, scheme = options.case
        print(json.dumps(run_case(name, target, scheme)))
        return
    rows = read_rows(options.out)
    for target in options.targets:
        for scheme in options.schemes:
            for name in options.only:
                if (name, target, scheme) not in rows:
                    row = run_apart(name, target, scheme, limit_s=options.limit_s)
                    rows[name, target, scheme] = row
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(f"{row['status']:<12} {row['seconds']:6.1f} s  {target} {scheme} {name}")
    print(table(rows.values()))


def read_rows(path: Path) -> dict[tuple[str, str, str], Row]:
    """Return the cases of an earlier run by name, target, scheme; a torn last line is dropped."""
    rows: dict[tuple[str, str, str], Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["name"], row["target"], row["scheme"]] = row
    return rows


def table(rows: Iterable[Row]) -> str:
    """Return how many cases ended how, by target and scheme, and what all but the proven said."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    told = []
    for row in rows:
        counts.setdefault((row["target"], row["scheme"]), Counter())[row["status"]] += 1
        if row["status"] not in ("verified", "interpreted"):
            case = f"{row['target']} {row['scheme']} {row['name']}"
            told.append(f"- {case}: {row['status']}: {row['detail']}")
    lines = ["| target | scheme | cases | proven | refused | stopped | failed |", "|" + "---|" * 7]
    for (target, scheme), count in counts.items():
        total, proven = count.total(), count["verified"] + count["interpreted"]
        cells = [target, scheme, total, f"{proven} ({100 * proven / total:.0f} %)"]
        cells += [count[status] for status in ("refused", "stopped", "failed")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, "", *told])


def run_apart(name: str, target: str, scheme: str, *, limit_s: float) -> Row:
    """Return the row of a case run in a process of its own, which may crash or take too long."""
    start = time.monotonic()
    command = [sys.executable, __file__, "--case", name, target, scheme]
    row: Row = {"name": name, "target": target, "scheme": scheme}
    try:
        done = subprocess.run(  # noqa: S603 - this very program
            command, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        row |= {"status": "failed", "detail": f"not done after {limit_s:.0f} s"}
    else:
        if done.returncode == 0:
            row |= json.loads(done.stdout.splitlines()[-1])
        else:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            row |= {"status": "failed", "detail": f"exit code {done.returncode}: {last}"}
    return row | {"seconds": round(time.monotonic() - start, 1)}


def run_case(name: str, target: str, scheme: Scheme) -> Row:
    """Return how a case ended and why: status and detail, the ratio where it was run."""
    torch.manual_seed(0)
    module, shaped = build(name)
    calibration, fresh = samples(shaped, _CALIBRATION), samples(shaped, _COMPARED)
    runtime = load_device(DEVICES[target]).runtime_for(target)
    found = find_target(target)
    try:
        with torch.no_grad():
            reference = output_tensors(module(*fresh))
        model = CompressedModel(
            module=module,
            example_inputs=tuple(tensor[:1] for tensor in calibration),
            scheme=scheme,
            calibration=(calibration,),
            inputs=tuple(InputSpec(name=f"input_{i}") for i in range(len(shaped))),
            outputs=tuple(OutputSpec(name=f"output_{i}") for i in range(len(reference))),
        )
        with tempfile.TemporaryDirectory() as folder:
            return _prove(found, model, runtime, Path(folder), fresh=fresh, reference=reference)
    except ParityError as stop:
        return {"status": "stopped", "detail": _told(stop)}
    except EdgeSDKError as refusal:
        return {"status": "refused", "detail": _told(refusal)}


def _prove(
    target: Any, model: CompressedModel, runtime: Any, folder: Path, *, fresh: Tensors,
    reference: Tensors,
) -> Row:  # fmt: skip
    emission = target.emit(model, runtime, folder)
    checks = target.checks(folder, emission, model)
    host = target.host_runtime(runtime)
    with ArtifactProcess(
        target=target.name, folder=folder, emission=emission, host_runtime=host.name
    ) as process:
        actual = output_tensors(artifact_predict(process)(*fresh))
    parity = compare(reference, actual, model.outputs, checks, runtime=host)
    gate(parity, model.scheme)
    return {"status": parity.status, "detail": "", "sqnr_db": parity.sqnr_db}


def _told(problem: EdgeSDKError) -> str:
    text = f"{problem}" + (f" -> {problem.next_step}" if problem.next_step else "")
    return text[:_LARGEST_TEXT]


def build(name: str) -> tuple[nn.Module, Tensors]:
    """Return a network in eval mode, its batch norms' statistics real, and a batch of one input."""
    if name in OWN:
        make, shape = OWN[name]
        module, shaped = make(), (torch.zeros(shape),)
    else:
        module, shaped = _from_transformers(ARCHITECTURES[name])
    if any(isinstance(layer, _BatchNorm) for layer in module.modules()):
        module.train()
        with torch.no_grad():
            for _ in range(5):
                module(*samples(shaped, _CALIBRATION))
    return module.eval(), shaped


def _from_transformers(architecture: Architecture) -> tuple[nn.Module, Tensors]:
    import transformers

    from edgesdk.sources.huggingface import TensorsOnly, example_inputs

    config = getattr(transformers, architecture.config)(**architecture.settings)
    config.use_cache = False
    model = getattr(transformers, architecture.model)(config).eval()
    if architecture.part:
        model = getattr(model, f"get_{architecture.part}")()
    named = example_inputs(model)
    if architecture.image:
        named = {key: torch.zeros(1, 3, *2 * (architecture.image,)) for key in named}
    if "input_values" in named:
        named = {"input_values": torch.zeros(1, 1600)}
    if "input_features" in named:
        named = {
            "input_features": torch.zeros(1, config.num_mel_bins, 2 * config.max_source_positions)
        }
    return TensorsOnly(model, tuple(named)), tuple(named.values())


def samples(shaped: Tensors, count: int) -> Tensors:
    """Return a batch shaped like the inputs: normal numbers, any tokens, masks of ones."""

    def like(tensor: Tensor) -> Tensor:
        shape = (count, *tensor.shape[1:])
        if tensor.is_floating_point():
            return torch.randn(shape)
        return torch.randint(1, 90, shape)

    first, *rest = shaped
    return (like(first), *(torch.ones_like(t).repeat(count, *[1] * (t.dim() - 1)) for t in rest))


if __name__ == "__main__":
    main()
