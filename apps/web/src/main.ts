// The demo page: self-test on loading, benchmark on request, pictures from a file.
import { type Bench, readBench, send } from "./bench";
import { DEVICE, IMAGE_IN } from "./constants";
import { Curve } from "./curve";
import { type Order, type Watch, measure } from "./measurement";
import { type Accelerator, Model, accelerators, bestLogits } from "./model";
import { runSelfTest } from "./selfTest";

function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

const status = element<HTMLParagraphElement>("status");
const select = element<HTMLSelectElement>("accelerator");
const buttons = ["self-test", "benchmark", "picture"].map((id) => element<HTMLButtonElement>(id));
const curve = new Curve(
  element("curve"),
  document.querySelector<SVGSVGElement>("#curve svg")!,
  element("curve-words"),
);
let model: Model | undefined;

// Runs one step with the buttons off, and says what went wrong where something did.
async function step(text: string, work: () => Promise<void>): Promise<void> {
  status.textContent = text;
  for (const button of buttons) button.disabled = true;
  try {
    await work();
  } catch (problem) {
    status.textContent = `Failed: ${problem instanceof Error ? problem.message : String(problem)}`;
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

async function selfTest(): Promise<void> {
  model?.dispose();
  model = await Model.load(select.value as Accelerator);
  const test = await runSelfTest(model);
  const noise = test.sqnrDb === null ? "not finite" : `${test.sqnrDb.toFixed(1)} dB`;
  status.textContent = `Self-test ${test.passed ? "passed" : "failed"}: ${test.samples} samples, ${noise}`;
}

// Returns the measurement, drawn while it is made and shown.
async function benchmark(order: Order, tell: Watch = async () => {}): Promise<object> {
  curve.clear();
  const measurement = await measure(order, async (done, total, point) => {
    curve.add(point);
    status.textContent = `Measuring… ${Math.round((100 * done) / total)} %`;
    await tell(done, total, point);
    // Let the browser draw before the next inference.
    await new Promise((resolve) => setTimeout(resolve));
  });
  element("measurement").textContent = JSON.stringify(measurement, null, 2);
  status.textContent = "Measured";
  return measurement;
}

// Measures for the server that the page came from, which hears of a failure, too.
async function benchmarkForServer(bench: Bench): Promise<void> {
  let measurement: object;
  try {
    if (!(await accelerators()).includes(bench.accelerator)) {
      throw new Error(`this browser offers no WebGPU here${isSecureContext ? "" : ": it takes https or localhost"}`);
    }
    measurement = await benchmark(bench, async (done, total, point) => {
      await send("progress", { done, total, median_ms: point.medianMs });
    });
  } catch (problem) {
    await send("failure", { message: problem instanceof Error ? problem.message : String(problem) });
    throw problem;
  }
  await send("measurement", measurement);
  status.textContent = "Measured and sent: this page can be closed";
}

// Pixels from 0 to 1, rows of interleaved channels, scaled to the size of the input.
async function pixels(file: File): Promise<Float32Array> {
  const [height, width, channels] = [8, 8, 1];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.drawImage(await createImageBitmap(file), 0, 0, width, height);
  const rgba = context.getImageData(0, 0, width, height).data;
  const result = new Float32Array(IMAGE_IN.elements);
  for (let pixel = 0; pixel < width * height; pixel++) {
    const [red, green, blue] = [0, 1, 2].map((i) => rgba[4 * pixel + i]! / 255) as [number, number, number];
    // ITU-R BT.601 luma, what most libraries call grey.
    const colours = channels === 1 ? [0.299 * red + 0.587 * green + 0.114 * blue] : [red, green, blue];
    colours.forEach((colour, i) => (result[channels * pixel + i] = colour));
  }
  return result;
}

async function classify(file: File): Promise<void> {
  model ??= await Model.load(select.value as Accelerator);
  const prediction = bestLogits(await model.predict({ image: await pixels(file) }));
  element("prediction").textContent = `${prediction.label} (${prediction.score.toFixed(3)})`;
  status.textContent = "Classified";
}

const picture = element<HTMLInputElement>("picture");
picture.addEventListener("change", () => {
  const file = picture.files?.[0];
  if (file) void step("Classifying…", () => classify(file));
});
element("self-test").addEventListener("click", () => void step("Testing…", selfTest));
element("benchmark").addEventListener("click", () => {
  const order = { accelerator: select.value as Accelerator, device: DEVICE, sustainedS: 0 };
  void step("Measuring…", async () => void (await benchmark(order)));
});
for (const name of await accelerators()) {
  select.add(new Option(name === "webgpu" ? "WebGPU" : "WebAssembly", name));
}
const bench = readBench(location.hash);
if (!bench) await step("Testing…", selfTest);
else await step("Measuring…", async () => void (await (bench.isSent ? benchmarkForServer(bench) : benchmark(bench))));
