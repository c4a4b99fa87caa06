"""Measure an artifact on the machine that it lies on: ``python agent.py OUT -o measurement.json``.

This one file needs Python 3.10, numpy and the wheel of the runtime that the artifact is for
(ai-edge-litert or executorch), so it can be copied to a board by itself. It checks the artifact's
hashes and the runtime's version, replays the golden vectors, and writes the Measurement JSON that
docs/concepts/measurement.md describes. What it cannot read is null, and a note says so where a
reader would look for it. Exit code 9 with one line on standard error: it could not be measured.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import math
import os
import platform
import re
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

_WARMUP_MS = 200.0
_TIMED_MS = 2000.0
_FEWEST_RUNS = 100
_LONGEST_MS = 20_000.0
_SLICE_S = 1.0
_HOOKED_ROUNDS = 10
_HOOKED_RUNS = 10
# As edgesdk/parity.py and 'edgesdk verify' have them; a test keeps them equal.
_REPLAY_SQNR_DB = 40.0
_FLOAT_SQNR_DB = {
    "fp32": 60.0, "fp16": 30.0, "int8": 10.0, "int8_dynamic": 10.0, "int4_dynamic": 3.0,
    "w8": 10.0, "w4": 3.0,
}  # fmt: skip
_HEADER_LIMIT_BYTES = 1_000_000
_NOBODY_WAITS = 13

Arrays = Sequence[Any]
Json = Any


class AgentError(Exception):
    """Why the artifact cannot be measured here, in one line."""


# --- the artifact -------------------------------------------------------------------------------


def read_manifest(folder: Path) -> Json:
    """Return the manifest, every file of the artifact being inside the folder and as sealed."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        sealed = dict(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise AgentError(f"{folder} is not an artifact folder: {problem}") from None
    for name, digest in sealed.items():
        path = folder / name
        if os.path.isabs(name) or ".." in Path(name).parts or not _is_within(path, folder):
            raise AgentError(f"the manifest names {name!r}, which is not inside the artifact")
        if not path.is_file() or sha256_of(path) != digest:
            raise AgentError(f"{name} is missing or not the file that was sealed; copy it again")
    return manifest


def _is_within(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their relative names together."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def read_golden(path: Path) -> tuple[list[Any], list[Any]]:
    """Return the golden inputs and outputs, ``[N, ...]`` in PyTorch layout, of a safetensors file.

    The format: the header's length, the header in JSON, then the bytes of float tensors.
    """
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    if length > _HEADER_LIMIT_BYTES:
        raise AgentError(f"{path.name} has a header of {length} bytes")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    found: dict[str, Any] = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            kind = {"F32": "<f4", "F64": "<f8"}.get(tensor["dtype"])
            if kind is None:
                raise AgentError(f"{path.name} holds {tensor['dtype']}, not float32 or float64")
            found[name] = np.frombuffer(data[begin:end], dtype=kind).reshape(tensor["shape"])
    columns = [
        [found[f"{kind}.{i}"] for i in range(len(found)) if f"{kind}.{i}" in found]
        for kind in ("input", "output")
    ]
    return columns[0], columns[1]


def encode(values: Arrays, specs: Sequence[Json]) -> list[list[Any]]:
    """Return one list of arrays per batch, in the file's layout and type.

    The last batch is filled up with its own last sample.
    """
    columns = []
    for value, spec in zip(values, specs, strict=True):
        batch = spec["shape"][0]
        missing = -len(value) % batch
        padded = np.concatenate([value, np.repeat(value[-1:], missing, axis=0)])
        array = np.transpose(padded, spec["from_torch"])
        if spec["scale"] is not None:
            info = np.iinfo(spec["dtype"])
            array = np.rint(array / spec["scale"]) + (spec["zero_point"] or 0)
            array = np.clip(array, info.min, info.max)
        array = np.ascontiguousarray(array.astype(spec["dtype"]))
        columns.append(array.reshape((-1, batch, *array.shape[1:])))
    return [list(batch) for batch in zip(*columns, strict=True)]


def decode(batches: Sequence[Arrays], specs: Sequence[Json], count: int) -> list[Any]:
    """Return the outputs of all batches as float arrays ``[N, ...]`` in PyTorch layout."""
    decoded = []
    for column, spec in zip(zip(*batches, strict=True), specs, strict=True):
        flat = np.concatenate(column)[:count]
        if spec["scale"] is not None:
            centred = flat.astype(np.float32) - (spec["zero_point"] or 0)
            flat = centred * np.float32(spec["scale"])
        decoded.append(np.transpose(flat, np.argsort(spec["from_torch"])))
    return decoded


# --- the runtimes -------------------------------------------------------------------------------


class LiteRT:
    """A ``.tflite`` file on LiteRT's CPU kernels (XNNPACK)."""

    name, wheel = "litert", "ai-edge-litert"
    no_hooks = "LiteRT's Python interface gives no times of operators"

    def __init__(self, manifest: Json, folder: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        path = str(folder / manifest["files"][0])
        self._interpreter: Any = Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        self._inputs = [_index(inputs, spec, i) for i, spec in enumerate(manifest["inputs"])]
        self._outputs = [_index(outputs, spec, i) for i, spec in enumerate(manifest["outputs"])]
        self.threads = threads

    def bind(self, inputs: Arrays) -> Callable[[], object]:
        """Return the interpreter's own invocation, the inputs set."""
        for index, array in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke

    def run(self, inputs: Arrays) -> list[Any]:
        """Return copies of the outputs of one inference."""
        self.bind(inputs)()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _index(details: Sequence[Json], spec: Json, position: int) -> int:
    """Return the tensor of that name; where the names were not kept, the one in that place."""
    named = [item["index"] for item in details if item["name"] == spec["name"]]
    return int(named[0] if named else details[position]["index"])


class ExecuTorch:
    """A ``.pte`` file on ExecuTorch; with ``hooks`` every operator leaves an event in an ETDump."""

    name, wheel = "executorch", "executorch"
    no_hooks = ""

    def __init__(self, manifest: Json, folder: Path, threads: int, *, hooks: bool = False) -> None:
        import executorch.kernels.quantized  # noqa: F401 - registers the quantize kernels
        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(threads)
        self._torch = torch
        content = (folder / manifest["files"][0]).read_bytes()
        # The method reads from the program and the program from its bytes: all three have to live.
        if hooks:
            self._program = Runtime.get().load_program(content, enable_etdump=True)
        else:
            self._program = Runtime.get().load_program(content)
        self._method: Any = self._program.load_method("forward")
        self.threads = int(portable_lib._threadpool_get_thread_count())

    def bind(self, inputs: Arrays) -> Callable[[], Any]:
        """Return the method's execution on these inputs."""
        tensors = [self._torch.from_numpy(array).contiguous() for array in inputs]
        execute = self._method.execute
        return lambda: execute(tensors)

    def run(self, inputs: Arrays) -> list[Any]:
        """Return the outputs of one inference."""
        return [output.numpy() for output in self.bind(inputs)()]

    def write_dump(self, path: str) -> None:
        """Write the ETDump of all executions, if the wheel keeps one; only with hooks."""
        with tempfile.TemporaryDirectory() as folder:
            debug = os.path.join(folder, "debug.bin")
            self._program.write_etdump_result_to_file(path, debug)

    def events(self, skip: int) -> list[tuple[str, bool, list[float]]]:
        """Return each leaf operator: its name, whether a delegate ran it, its times in ms.

        The times of the first ``skip`` executions are left out. Call it once, at the end.
        """
        from executorch.devtools import Inspector

        with tempfile.TemporaryDirectory() as folder:
            dump = os.path.join(folder, "dump.etdp")
            self.write_dump(dump)
            if not os.path.exists(dump):
                return []
            blocks = Inspector(etdump_path=dump).event_blocks
        return [(name, told, times[skip:]) for name, told, times in leaf_events(blocks)]


def leaf_events(blocks: Iterable[Any]) -> list[tuple[str, bool, list[float]]]:
    """Return each operator of an ETDump's blocks: its name, whether a delegate ran it, its times.

    What contains other events is left out: the method, and each call of a delegate.
    """
    found = [
        (event.name, bool(event.is_delegated_op), [float(ms) for ms in event.perf_data.raw])
        for block in blocks
        if block.name == "Execute"
        for event in block.events
        if event.perf_data is not None
    ]
    return [item for item in found if item[1] or item[0].startswith("native_call_")]


RUNTIMES = {kind.name: kind for kind in (LiteRT, ExecuTorch)}


def find_runtime(manifest: Json) -> tuple[Any, str]:
    """Return the class that runs the artifact and its wheel's version, which must be new enough."""
    kind = RUNTIMES.get(manifest["runtime"])
    if kind is None:
        raise AgentError(
            f"the artifact is for {manifest['runtime']!r}; this agent runs {', '.join(RUNTIMES)}"
        )
    try:
        version = metadata.version(kind.wheel)
    except metadata.PackageNotFoundError:
        raise AgentError(
            f"{kind.wheel} is not installed for {sys.executable}; pip install {kind.wheel}"
        ) from None
    if _numbers(version) < _numbers(manifest["minimum_runtime"]):
        raise AgentError(
            f"{kind.wheel} is {version} here, the artifact needs {manifest['minimum_runtime']} or "
            f"newer; pip install --upgrade {kind.wheel}"
        )
    return kind, version


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0])]


# --- measuring ----------------------------------------------------------------------------------


def time_runs(infer: Callable[[], object], runs: int) -> list[float]:
    """Return the milliseconds of each of ``runs`` inferences."""
    samples = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        infer()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    if min(samples) < 0:
        raise AgentError(f"the clock went backwards: an inference took {min(samples)} ms")
    return samples


def time_for(infer: Callable[[], object], least_ms: float, runs: int = 1) -> list[float]:
    """Return the milliseconds of inferences that took ``least_ms`` together, ``runs`` at least."""
    samples = time_runs(infer, 1)
    total = samples[0]
    while total < least_ms or (len(samples) < runs and total < _LONGEST_MS):
        samples += time_runs(infer, 1)
        total += samples[-1]
    return samples


def sustain(infer: Callable[[], object], seconds: float) -> list[Json]:
    """Return the medians of slices of about a second each, for that long."""
    slices = []
    start = time.monotonic()
    while (begun := time.monotonic() - start) < seconds:
        samples = time_runs(infer, 1)
        while time.monotonic() - start < begun + _SLICE_S:
            samples += time_runs(infer, 1)
        median = float(np.median(samples))
        slices.append({"start_s": round(begun, 6), "median_ms": median, "runs": len(samples)})
        say(f"{begun:.0f}/{seconds:.0f} {median:.3f} ms")
    return slices


def replay(session: Any, manifest: Json, folder: Path) -> Json:
    """Return the self-test: do the golden inputs give the golden outputs?"""
    inputs, wanted = read_golden(folder / "golden.safetensors")
    batches = [session.run(batch) for batch in encode(inputs, manifest["inputs"])]
    got = decode(batches, manifest["outputs"], len(inputs[0]))
    shapes = [tuple(value.shape for value in values) for values in (wanted, got)]
    if shapes[0] != shapes[1]:
        detail = f"answers of shapes {shapes[1]}, sealed were {shapes[0]}"
        return {"status": "failed", "samples": len(inputs[0]), "detail": detail}
    noise_db = sqnr_db(wanted, got)
    worst = max(float(np.abs(a.astype(float) - b).max()) for a, b in zip(wanted, got, strict=True))
    # Where nothing ran the file when it was sealed, the golden outputs are the float network's.
    is_replay = manifest["parity"]["status"] == "verified"
    schemes = {manifest["scheme"], *manifest.get("layer_schemes", {}).values()}
    least = _REPLAY_SQNR_DB if is_replay else min(_FLOAT_SQNR_DB[name] for name in schemes)
    passed = noise_db is not None and noise_db >= least
    compared = "sealed answers" if is_replay else "the float network's answers"
    return {
        "status": "passed" if passed else "failed",
        "samples": len(inputs[0]),
        "sqnr_db": noise_db,
        "maximum_error": worst if np.isfinite(worst) else None,
        "detail": f"compared with {compared}, {least:.0f} dB are needed",
    }


def sqnr_db(wanted: Arrays, got: Arrays) -> float | None:
    """Return 10 log10(signal / noise) over all outputs, 200 where equal, None where not finite."""
    varying = whole = noise = 0.0
    for reference, actual in zip(wanted, got, strict=True):
        exact = reference.astype(np.float64)
        varying += float(np.square(exact - exact.mean(0, keepdims=True)).sum())
        whole += float(np.square(exact).sum())
        noise += float(np.square(exact - actual.astype(np.float64)).sum())
    if not np.isfinite(noise):
        return None
    signal = varying if varying > 1e-12 * whole else whole
    if noise <= signal * 1e-20:
        return 200.0
    return 10 * math.log10(max(signal, 1e-30) / noise)


def watch(
    kind: Any, infer: Callable[[], object], inputs: Arrays, p50_ms: float, given: Json
) -> Json:
    """Return the times of operators, on the scale of ``p50_ms``; None where no event is kept.

    Watched and unwatched inferences take turns, so that a drift of the machine is in both.
    """
    manifest, folder, threads = given
    session = kind(manifest, folder, threads, hooks=True)
    watched = session.bind(inputs)
    skipped = len(time_for(watched, _WARMUP_MS / 4))
    hooked: list[float] = []
    plain: list[float] = []
    for _ in range(_HOOKED_ROUNDS):
        plain += time_runs(infer, _HOOKED_RUNS)
        hooked += time_runs(watched, _HOOKED_RUNS)
    events = session.events(skipped)
    if not events:
        return None
    hooked_ms = p50_ms * float(np.median(hooked) / np.median(plain))
    scale = p50_ms / float(np.median(hooked))
    layers = join([(name, delegated) for name, delegated, _ in events], folder)
    ops = [
        {"op": name, "layer": layer, "ms": typical(times) * scale, "count": 1}
        for (name, _, times), layer in zip(events, layers, strict=True)
    ]
    return {"ops": ops, "hooked_ms": hooked_ms, "source": "ETDump", "scaled_to": "p50_ms"}


def typical(times: Sequence[float]) -> float:
    """Return the mean of the middle half: XNNPACK counts whole microseconds; a median jumps."""
    ordered = sorted(times)
    quarter = len(ordered) // 4
    return float(np.mean(ordered[quarter : len(ordered) - quarter]))


# What XNNPACK calls a kernel, and what the serialised graph calls the node it computes. A
# depthwise node with several outputs for each input runs as a plain convolution: one kind.
_KERNEL_KINDS = (
    (r"deconvolution", "conv_transpose2d"),
    (r"convolution|depthwise", "conv2d"),
    (r"fully connected", "fully_connected"),
    (r"batch matrix multiply", "batch_matrix_multiply"),
    (r"softmax", "softmax"),
    (r"max pooling", "max_pooling2d"),
    (r"global average pooling|^mean", "global_avg_pooling2d"),
    (r"average pooling", "avg_pooling2d"),
    (r"add", "add"),
    (r"multiply", "multiply"),
)


def join(events: Sequence[tuple[str, bool]], folder: Path) -> list[str | None]:
    """Return the layer of each delegated kernel, by kind and order; None where they do not tally.

    XNNPACK names no nodes. It runs them in the graph's order, so where as many kernels of a kind
    ran as the graph has nodes of it, the first is the first. The name says the kind.
    """
    path = folder / "profile_map.json"
    nodes = json.loads(path.read_text(encoding="utf-8"))["runtime_op_to_layer"]
    places: dict[str, list[str]] = {}
    for name, layer in nodes.items():
        node = re.sub(r"^\d+\.(depthwise_(?=conv2d))?|_\d+$", "", name)
        places.setdefault(node, []).append(layer)
    kinds = [_kind_of(name) if delegated else None for name, delegated in events]
    layers: list[str | None] = []
    for kind in kinds:
        at = places.get(kind or "", [])
        number = sum(earlier == kind for earlier in kinds[: len(layers)])
        layers.append(at[number] if len(at) == kinds.count(kind) else None)
    return layers


def _kind_of(kernel: str) -> str | None:
    plain = kernel.lower()
    return next((kind for pattern, kind in _KERNEL_KINDS if re.search(pattern, plain)), None)


# --- the machine --------------------------------------------------------------------------------


def _text(*paths: str) -> str | None:
    for path in paths:
        try:
            found = Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        except OSError:
            continue
        if found:
            return found
    return None


def hardware() -> Json:
    """Return the board's model, its processor and its system, as the kernel tells them."""
    cpu = _text("/proc/cpuinfo") or ""
    name = re.search(r"^model name\s*:\s*(.+)$", cpu, re.MULTILINE)
    return {
        "model": _text("/proc/device-tree/model", "/sys/devices/virtual/dmi/id/product_name"),
        "processor": name[1] if name else platform.processor() or None,
        "system": f"{platform.system()} {platform.release()}",
    }


def temperature_c() -> float | None:
    """Return the hottest thermal zone's temperature; kernels give thousandths of a degree."""
    found = [_text(str(zone)) for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(text) / 1000 for text in found if text and re.fullmatch(r"-?\d+", text)]
    return max((value for value in degrees if -90 <= value <= 200), default=None)


def power() -> Json:
    """Return the source of power and the governor of the clock, null where the kernel is silent."""
    supplies = list(Path("/sys/class/power_supply").glob("*"))
    status = {_text(str(supply / "status")) for supply in supplies} - {None}
    online = {_text(str(supply / "online")) for supply in supplies} - {None}
    source = "battery" if "Discharging" in status else "mains" if "1" in online else None
    mode = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {"power_source": source, "power_mode": mode}


def throttled() -> bool | None:
    """Return whether a Raspberry Pi's firmware throttles now; None on any other board."""
    bits = _text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    return bool(int(bits, 16) & 0b111) if bits and re.fullmatch(r"[0-9a-fA-F]+", bits) else None


def peak_bytes() -> int | None:
    """Return the most memory that this process held at once, None where the system keeps none."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", _text("/proc/self/status") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None


# --- the program --------------------------------------------------------------------------------


def say(text: str) -> None:
    """Tell whoever started this how far it is."""
    print(text, flush=True)  # noqa: T201 - this file is a program by itself


def measure(folder: Path, options: argparse.Namespace) -> Json:
    """Return the Measurement of an artifact as a JSON object."""
    manifest = read_manifest(folder)
    kind, version = find_runtime(manifest)
    threads = options.threads or manifest["threads"]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    say(f"Loading {manifest['files'][0]} in {manifest['runtime']} {version}")
    session, load_ms = _load(kind, manifest, folder, threads)
    golden, _ = read_golden(folder / "golden.safetensors")
    inputs = encode([value[: manifest["batch_size"]] for value in golden], manifest["inputs"])[0]
    before = temperature_c()
    infer = session.bind(inputs)
    [first_ms] = time_runs(infer, 1)
    warmup = time_for(infer, _WARMUP_MS, 5)
    say("Timing inferences")
    samples = time_for(infer, _TIMED_MS, _FEWEST_RUNS)
    if options.sustained:
        say("Running on to see whether it stays as fast")
    sustained = sustain(infer, options.sustained) if options.sustained else []
    conditions = {"temperature_before_c": before, "temperature_after_c": temperature_c()}
    conditions |= {"is_throttled": throttled(), **power()}
    peak = peak_bytes()  # before golden vectors and profilers add theirs
    self_test = replay(session, manifest, folder)
    p50_ms, p90_ms, p99_ms = (float(np.percentile(samples, share)) for share in (50, 90, 99))
    per_op, notes = None, list(options.note)
    if options.hooks and kind.no_hooks:
        notes.append(f"per_op: {kind.no_hooks}")
    elif options.hooks:
        say("Timing operators")
        infer = session.bind(inputs)
        told = "the runtime left no events"
        try:
            per_op = watch(kind, infer, inputs, p50_ms=p50_ms, given=(manifest, folder, threads))
        except Exception as problem:  # noqa: BLE001 - it costs these figures, no others
            told = f"the profiler failed: {problem!r}"[:300]
        if per_op is not None:
            told = "XNNPACK counts whole microseconds; its kernels are joined by kind and order"
        notes.append(f"per_op: {told}")
    return {
        "schema_version": 1,
        "artifact_sha256": sha256_of(folder / manifest["files"][0]),
        "device": options.device or manifest["device"],
        "identity": {
            "runtime": kind.name,
            "version": version,
            "platform": f"{sys.platform}-{platform.machine()}",
            "unit": "cpu",
            "threads": session.threads,
        },
        "hardware": hardware(),
        "conditions": conditions,
        "batch_size": manifest["batch_size"],
        "load_ms": load_ms,
        "first_ms": first_ms,
        "warmup_runs": 1 + len(warmup),
        "runs": len(samples),
        "minimum_ms": min(samples),
        "p50_ms": p50_ms,
        "p90_ms": p90_ms,
        "p99_ms": p99_ms,
        "sustained": sustained,
        "per_op": per_op,
        "peak_memory": {"bytes": peak, "counts": "process"} if peak else None,
        "energy": None,
        "self_test": self_test,
        "measured_by": options.measured_by,
        "measured_at": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notes": notes,
    }


def _load(kind: Any, manifest: Json, folder: Path, threads: int) -> tuple[Any, float]:
    """Return a session and how long its loading took."""
    try:
        # The first load also imports the wheel, which an app does not do, so the second counts.
        kind(manifest, folder, threads)
        start = time.perf_counter_ns()
        session = kind(manifest, folder, threads)
    except (OSError, RuntimeError, ValueError, KeyError) as problem:
        raise AgentError(f"{kind.name} cannot load {manifest['files'][0]}: {problem}") from problem
    return session, (time.perf_counter_ns() - start) / 1e6


def _options(arguments: Iterable[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("artifact", type=Path, help="the artifact folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--device", help="profile the numbers stand for; default: the artifact's")
    parser.add_argument("--threads", type=int, help="default: the artifact's")
    parser.add_argument("--sustained", type=float, default=0.0, help="seconds of a long run")
    parser.add_argument("--no-hooks", dest="hooks", action="store_false", help="no operator times")
    parser.add_argument("--measured-by", default="edgesdk agent", help="the program's name")
    parser.add_argument(
        "--stop-at-eof", action="store_true", help="end when standard input closes: nobody waits"
    )
    parser.add_argument("--note", action="append", default=[], help="a sentence to keep")
    return parser.parse_args(None if arguments is None else list(arguments))


def _stop_at_eof() -> None:
    """End this process when standard input closes, as it does when a connection is cut."""
    while os.read(0, 4096):
        pass
    os._exit(_NOBODY_WAITS)


def main(arguments: Iterable[str] | None = None) -> int:
    """Measure, write the file in one step, and return the exit code."""
    options = _options(arguments)
    if options.stop_at_eof:
        threading.Thread(target=_stop_at_eof, daemon=True).start()
    try:
        text = json.dumps(measure(options.artifact, options), indent=2, allow_nan=False) + "\n"
        part = options.out.with_name(options.out.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(options.out)
    except AgentError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 9
    except OSError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 9
    return 0


if __name__ == "__main__":
    sys.exit(main())
