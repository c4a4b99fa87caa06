// The model: `const model = await Model.load("wasm"); await model.predict({...})`.
import { CompiledModel, Tensor as RuntimeTensor, getWebGpuDevice, isWebGPUSupported, loadAndCompile, loadLiteRt } from "@litertjs/core";
import { sha256 } from "@noble/hashes/sha2";
import { bytesToHex } from "@noble/hashes/utils";

import {
  BATCH_SIZE,
  type Inputs,
  MODEL_FILE,
  MODEL_SHA256,
  type Outputs,
  IMAGE_IN,
  LOGITS_OUT,
  LOGITS_LABELS,
} from "./constants";
import { type Prediction, type Values, best, decode, encode } from "./processing";

export type Accelerator = "wasm" | "webgpu";

// Returns what this browser can run the model on; WebAssembly always.
export async function accelerators(): Promise<Accelerator[]> {
  const { gpu } = navigator as Navigator & { gpu?: { requestAdapter(): Promise<object | null> } };
  const adapter = isWebGPUSupported() ? await gpu?.requestAdapter().catch(() => null) : null;
  return adapter ? ["wasm", "webgpu"] : ["wasm"];
}

let runtime: Promise<unknown> | undefined;

export class Model {
  private constructor(
    private readonly compiled: CompiledModel,
    readonly accelerator: Accelerator,
  ) {}

  // Fetches the file from `base`, checks its SHA-256 and compiles it; the WebAssembly lies there, too.
  static async load(accelerator: Accelerator, base: string = document.baseURI): Promise<Model> {
    const response = await fetch(new URL(MODEL_FILE, base));
    if (!response.ok) throw new Error(`${MODEL_FILE} cannot be fetched: ${response.status}`);
    const content = new Uint8Array(await response.arrayBuffer());
    if (bytesToHex(sha256(content)) !== MODEL_SHA256) {
      throw new Error(`${MODEL_FILE} is not the file that was compiled`);
    }
    runtime ??= loadLiteRt(new URL("wasm/", base).href);
    await runtime;
    return new Model(await loadAndCompile(content, { accelerator }), accelerator);
  }

  // Returns the inputs as tensors of the runtime, for `run`; `release` them afterwards.
  prepare(inputs: Inputs, normalise = true): Record<string, RuntimeTensor> {
    return {
      [IMAGE_IN.name]: new RuntimeTensor(
        encode(inputs.image, IMAGE_IN, normalise),
        [ ...IMAGE_IN.shape],
      ),
    };
  }

  // Runs one inference: it is what a benchmark times.
  async run(tensors: Record<string, RuntimeTensor>): Promise<Record<string, RuntimeTensor>> {
    const outputs = await this.compiled.run(tensors);
    // The GPU only has the work in its queue until it says so.
    if (this.accelerator === "webgpu") await getWebGpuDevice()?.queue.onSubmittedWorkDone();
    return outputs;
  }

  async predict(inputs: Inputs, normalise = true): Promise<Outputs> {
    const tensors = this.prepare(inputs, normalise);
    const outputs = await this.run(tensors);
    const read = async (name: string): Promise<Values> => {
      const tensor = outputs[name];
      if (!tensor) throw new Error(`the file has no output ${name}`);
      return (await tensor.data()).slice() as Values;
    };
    try {
      return {
        logits: decode(await read(LOGITS_OUT.name), LOGITS_OUT) as Outputs["logits"],
      };
    } finally {
      release(tensors);
      release(outputs);
    }
  }

  dispose(): void {
    this.compiled.delete();
  }
}

export function release(tensors: Record<string, RuntimeTensor>): void {
  for (const tensor of Object.values(tensors)) if (!tensor.deleted) tensor.delete();
}

// The class with the largest score of one sample of a batch of 1.
export function bestLogits(outputs: Outputs, sample = 0): Prediction {
  const scores = outputs.logits;
  return best(scores, LOGITS_LABELS, scores.length / BATCH_SIZE, sample);
}

