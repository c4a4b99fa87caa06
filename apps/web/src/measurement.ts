// Times the model and tells it as a measurement that edgesdk reads.
import { BATCH_SIZE, DEVICE, MODEL_SHA256 } from "./constants";
import { type Accelerator, Model, release } from "./model";
import { readGolden, runSelfTest } from "./selfTest";

const WARMUP_RUNS = 10;
const RUNTIME_VERSION = "2.5.3";

// Every step is a measure of the browser's own timeline, too: see its performance panel.
async function timed<T>(name: string, step: () => Promise<T>): Promise<[T, number]> {
  const start = performance.now();
  const result = await step();
  const entry = performance.measure(`digits ${name}`, { start, end: performance.now() });
  performance.clearMeasures(entry.name);
  return [result, entry.duration];
}

// The quantile of sorted times, interpolated between ranks.
function quantile(sorted: readonly number[], fraction: number): number {
  const position = fraction * (sorted.length - 1);
  const below = Math.floor(position);
  const low = sorted[below]!;
  return low + (position - below) * (sorted[Math.min(below + 1, sorted.length - 1)]! - low);
}

export async function measure(accelerator: Accelerator, runs = 100): Promise<object> {
  const [model, loadMs] = await timed("load", () => Model.load(accelerator));
  const golden = await readGolden();
  // Feeding the inputs is not the runtime's time.
  const tensors = model.prepare(golden[0]![0], false);
  const once = async (name: string): Promise<number> => {
    const [outputs, ms] = await timed(name, () => model.run(tensors));
    release(outputs);
    return ms;
  };
  const firstMs = await once("first inference");
  for (let i = 0; i < WARMUP_RUNS; i++) await once("warm-up");
  const times: number[] = [];
  for (let i = 0; i < runs; i++) times.push(await once("inference"));
  times.sort((a, b) => a - b);
  release(tensors);
  const test = await runSelfTest(model);
  model.dispose();
  return {
    schema_version: 1,
    artifact_sha256: MODEL_SHA256,
    device: DEVICE,
    identity: {
      runtime: "litert.js",
      version: RUNTIME_VERSION,
      platform: accelerator === "webgpu" ? "webgpu" : "wasm",
      unit: accelerator === "webgpu" ? "gpu" : "cpu",
      threads: 1,
    },
    measured_by: "edgesdk integrate --app web",
    measured_at: `${new Date().toISOString().slice(0, 19)}Z`,
    batch_size: BATCH_SIZE,
    warmup_runs: WARMUP_RUNS,
    runs,
    load_ms: loadMs,
    first_ms: firstMs,
    minimum_ms: times[0],
    p50_ms: quantile(times, 0.5),
    p90_ms: quantile(times, 0.9),
    p99_ms: quantile(times, 0.99),
    hardware: { model: null, processor: null, system: navigator.userAgent },
    self_test: {
      status: test.passed ? "passed" : "failed",
      samples: test.samples,
      sqnr_db: test.sqnrDb,
      maximum_error: test.maximumError,
    },
    notes: ["a browser's clock is coarse: it ticks every 0.1 ms or less often unless the page is isolated"],
  };
}
