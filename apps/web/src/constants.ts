// What the manifest says of the model.
import type { Tensor } from "./processing";

export const MODEL_FILE = "model.tflite";
export const MODEL_SHA256 = "d9415876d067863c7a8593b0a4891a65511f58d79a05d7fba4d84d339d32d632";
// What the numbers stand for: a browser is not the native runtime that the artifact was compiled for.
export const DEVICE = "browser";
export const BATCH_SIZE = 1;

export const IMAGE_IN = {
  name: "image",
  type: "float32",
  elements: 64,
  shape: [1, 8, 8, 1],
  strides: [64, 8, 1, 1],
  mean: [0.30506754],
  std: [0.37525913],
  channelAxis: 0,
} as const satisfies Tensor;

export const LOGITS_OUT = {
  name: "logits",
  type: "float32",
  elements: 10,
  shape: [1, 10],
  strides: [10, 1],
  mean: [],
  std: [],
  channelAxis: 0,
} as const satisfies Tensor;

export const LOGITS_LABELS: readonly string[] = [
  "0",
  "1",
  "2",
  "3",
  "4",
  "5",
  "6",
  "7",
  "8",
  "9",
];

// Inputs as an app gives them (images as rows of interleaved pixels from 0 to 1) and the outputs.
export interface Inputs {
  // 1 x 8 x 8 x 1
  image: Float32Array;
}

export interface Outputs {
  // 1 x 10, logits
  logits: Float32Array;
}

// The golden samples in golden.bin, and what answers are compared by.
export const GOLDEN = {
  invocations: 16,
  signal: 3186.27,
  minimumSqnrDb: 40.0,
} as const;
