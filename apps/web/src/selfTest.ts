// Does the model compute here what it computed when it was compiled?
import {
  BATCH_SIZE,
  GOLDEN,
  type Inputs,
  type Outputs,
  IMAGE_IN,
  LOGITS_OUT,
} from "./constants";
import type { Model } from "./model";

export interface SelfTest {
  readonly passed: boolean;
  readonly samples: number;
  readonly sqnrDb: number | null;
  readonly maximumError: number | null;
}

const EQUAL_DB = 200;

// Returns the golden inputs and outputs, one pair an inference.
export async function readGolden(base: string = document.baseURI): Promise<[Inputs, Outputs][]> {
  const response = await fetch(new URL("golden.bin", base));
  if (!response.ok) throw new Error(`golden.bin cannot be fetched: ${response.status}`);
  const content = await response.arrayBuffer();
  let offset = 0;
  const take = <T>(kind: new (buffer: ArrayBuffer, offset: number, length: number) => T, elements: number): T[] =>
    Array.from({ length: GOLDEN.invocations }, () => {
      const values = new kind(content, offset, elements);
      offset += 4 * elements;
      return values;
    });
  const image = take(Float32Array, IMAGE_IN.elements);
  const logitsOut = take(Float32Array, LOGITS_OUT.elements);
  return Array.from({ length: GOLDEN.invocations }, (_, i) => [
    { image: image[i]! },
    { logits: logitsOut[i]! } as Outputs,
  ]);
}

export async function runSelfTest(model: Model): Promise<SelfTest> {
  let noise = 0;
  let largest = 0;
  for (const [inputs, wanted] of await readGolden()) {
    const got = await model.predict(inputs, false);
    for (const name of Object.keys(wanted) as (keyof Outputs)[]) {
      wanted[name].forEach((value, i) => {
        const difference = got[name][i]! - value;
        noise += difference * difference;
        largest = Math.max(largest, Math.abs(difference));
      });
    }
  }
  const samples = GOLDEN.invocations * BATCH_SIZE;
  if (!Number.isFinite(noise)) return { passed: false, samples, sqnrDb: null, maximumError: null };
  const sqnrDb = noise > 0 ? Math.min(EQUAL_DB, 10 * Math.log10(GOLDEN.signal / noise)) : EQUAL_DB;
  return { passed: sqnrDb >= GOLDEN.minimumSqnrDb, samples, sqnrDb, maximumError: largest };
}
