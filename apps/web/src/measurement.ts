// Times the model and tells it as a measurement that edgesdk reads.
import { BATCH_SIZE, MODEL_SHA256 } from "./constants";
import { type Accelerator, Model, release } from "./model";
import { readGolden, runSelfTest } from "./selfTest";

const RUNTIME_VERSION = "2.5.3";
const WARMUP_MS = 200;
const TIMED_MS = 2000;
const LONGEST_MS = 20_000;
const FEWEST_SAMPLES = 100;
// The timed run comes in pieces, so that whoever watches sees it grow.
const PIECES = 8;
const SLICE_MS = 1000;
// A time is read from the clock at its start and end: 20 ticks keep that within a tenth.
const TICKS = 20;

// What is to be found out: the numbers stand for `device`, `sustainedS` seconds go on after the median is known.
export interface Order {
  readonly accelerator: Accelerator;
  readonly device: string;
  readonly sustainedS: number;
}

// Many inferences that began `startS` seconds after the first warm one.
export interface Point {
  readonly startS: number;
  readonly medianMs: number;
  readonly runs: number;
}

// Told between inferences, never during one: how far it is, and the latest point of the curve.
export type Watch = (done: number, total: number, point: Point) => Promise<void>;

// Every step is a measure of the browser's own timeline, too: see its performance panel.
async function timed<T>(name: string, step: () => Promise<T>): Promise<[T, number]> {
  const start = performance.now();
  const result = await step();
  const entry = performance.measure(`digits ${name}`, { start, end: performance.now() });
  performance.clearMeasures(entry.name);
  return [result, entry.duration];
}

// The smallest step of the clock in milliseconds: microseconds where the page is isolated.
function tick(): number {
  let smallest = Infinity;
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    smallest = Math.min(smallest, now - start);
  }
  return smallest;
}

// The quantile of sorted times, interpolated between ranks.
function quantile(sorted: readonly number[], fraction: number): number {
  const position = fraction * (sorted.length - 1);
  const below = Math.floor(position);
  const low = sorted[below]!;
  return low + (position - below) * (sorted[Math.min(below + 1, sorted.length - 1)]! - low);
}

function ascending(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

// Mean times of `batch` inferences each, until `leastMs` have passed and, unless that takes too long, `fewest` are there.
async function sample(once: () => Promise<void>, batch: number, leastMs: number, fewest = 1): Promise<number[]> {
  const times: number[] = [];
  for (let total = 0; total < leastMs || (times.length < fewest && total < LONGEST_MS / PIECES); ) {
    const [, ms] = await timed("inference", async () => {
      for (let i = 0; i < batch; i++) await once();
    });
    times.push(ms / batch);
    total += ms;
  }
  return times;
}

// Slices of about a second for so long, each told to `watch` before the next one begins.
async function sustain(once: () => Promise<void>, batch: number, seconds: number, watch: Watch): Promise<Point[]> {
  const points: Point[] = [];
  const start = performance.now();
  for (let startS = 0; startS < seconds; startS = (performance.now() - start) / 1000) {
    const times = await sample(once, batch, SLICE_MS);
    const point = { startS, medianMs: quantile(ascending(times), 0.5), runs: times.length * batch };
    points.push(point);
    await watch(Math.min(startS, seconds), seconds, point);
  }
  return points;
}

export async function measure(order: Order, watch: Watch = async () => {}): Promise<object> {
  let wasHidden = document.hidden;
  const hide = (): void => void (wasHidden ||= document.hidden);
  document.addEventListener("visibilitychange", hide);
  // The first load also fetches LiteRT.js, which is not the model's time, so the second counts.
  (await Model.load(order.accelerator)).dispose();
  const [model, loadMs] = await timed("load", () => Model.load(order.accelerator));
  const golden = await readGolden();
  // Feeding the inputs is not the runtime's time.
  const tensors = model.prepare(golden[0]![0], false);
  const once = async (): Promise<void> => release(await model.run(tensors));
  const [, firstMs] = await timed("first inference", once);
  const clockMs = tick();
  const start = performance.now();
  const warmup = await sample(once, 1, WARMUP_MS, 10);
  // The first warm-ups are slower: the engine still optimises its WebAssembly.
  const lateMs = quantile(ascending(warmup.slice(warmup.length / 2)), 0.5);
  const batch = Math.max(1, Math.ceil((TICKS * clockMs) / Math.max(lateMs, clockMs / TICKS)));
  const times: number[] = [];
  for (let i = 0; i < PIECES; i++) {
    const startS = (performance.now() - start) / 1000;
    const piece = await sample(once, batch, TIMED_MS / PIECES, FEWEST_SAMPLES / PIECES);
    times.push(...piece);
    const medianMs = quantile(ascending(piece), 0.5);
    await watch(i + 1, PIECES, { startS, medianMs, runs: piece.length * batch });
  }
  const offsetS = (performance.now() - start) / 1000;
  const sustained = await sustain(once, batch, order.sustainedS, (done, total, point) =>
    watch(done, total, { ...point, startS: point.startS + offsetS }),
  );
  release(tensors);
  const test = await runSelfTest(model);
  model.dispose();
  document.removeEventListener("visibilitychange", hide);
  const sorted = ascending(times);
  const notes: string[] = [];
  if (batch > 1) notes.push(`each time is the mean of ${batch} inferences: this clock ticks every ${clockMs.toFixed(3)} ms`);
  if (wasHidden) notes.push("the page was in the background for some of the time, where browsers slow it down");
  return {
    schema_version: 1,
    artifact_sha256: MODEL_SHA256,
    device: order.device,
    identity: {
      runtime: "litert.js",
      version: RUNTIME_VERSION,
      platform: order.accelerator,
      unit: order.accelerator === "webgpu" ? "gpu" : "cpu",
      threads: 1,
    },
    measured_by: "edgesdk integrate --app web",
    measured_at: `${new Date().toISOString().slice(0, 19)}Z`,
    batch_size: BATCH_SIZE,
    warmup_runs: 1 + warmup.length,
    runs: times.length * batch,
    load_ms: loadMs,
    first_ms: firstMs,
    minimum_ms: sorted[0],
    p50_ms: quantile(sorted, 0.5),
    p90_ms: quantile(sorted, 0.9),
    p99_ms: quantile(sorted, 0.99),
    sustained: sustained.map((point) => ({ start_s: point.startS, median_ms: point.medianMs, runs: point.runs })),
    hardware: { model: null, processor: null, system: navigator.userAgent },
    self_test: {
      status: test.passed ? "passed" : "failed",
      samples: test.samples,
      sqnr_db: test.sqnrDb,
      maximum_error: test.maximumError,
    },
    notes,
  };
}
