// Between an app's arrays and the file's: normalisation and layout, and labels.
export interface Tensor {
  readonly name: string;
  readonly type: string;
  readonly elements: number;
  readonly shape: readonly number[];
  // How far apart neighbours along each axis of `shape` are in the other array.
  readonly strides: readonly number[];
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly channelAxis: number;
}

export type Values = Float32Array | Int32Array;

export interface Prediction {
  readonly index: number;
  readonly label: string;
  readonly score: number;
}

// Returns an array in the order of `tensor.shape`, taken from the other array; `visit` may change values.
function arranged<T extends Values>(
  values: T,
  tensor: Tensor,
  visit: (value: number, channel: number) => number,
): T {
  if (values.length !== tensor.elements) {
    throw new RangeError(`${tensor.name} has ${values.length} values, not ${tensor.elements}`);
  }
  const result = new (values.constructor as new (length: number) => T)(tensor.elements);
  const position = tensor.shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < tensor.elements; to++) {
    result[to] = visit(values[from]!, position[tensor.channelAxis]!);
    for (let axis = tensor.shape.length - 1; axis >= 0; axis--) {
      from += tensor.strides[axis]!;
      position[axis]!++;
      if (position[axis]! < tensor.shape[axis]!) break;
      from -= tensor.strides[axis]! * tensor.shape[axis]!;
      position[axis] = 0;
    }
  }
  return result;
}

// Returns an app's values as the file takes them, each operation rounded to float32.
export function encode<T extends Values>(values: T, tensor: Tensor, normalise: boolean): T {
  const { mean, std } = tensor;
  if (!normalise || mean.length === 0) return arranged(values, tensor, (value) => value);
  return arranged(values, tensor, (value, position) => {
    const channel = mean.length === 1 ? 0 : position;
    return Math.fround(value - Math.fround(mean[channel]!)) / Math.fround(std[channel]!);
  });
}

// Returns what the file answered in the app's layout.
export function decode<T extends Values>(values: T, tensor: Tensor): T {
  return arranged(values, tensor, (value) => value);
}

// Returns the best class of one sample of `classes` scores each.
export function best(scores: Values, labels: readonly string[], classes: number, sample = 0): Prediction {
  const start = sample * classes;
  let index = 0;
  for (let i = 1; i < classes; i++) if (scores[start + i]! > scores[start + index]!) index = i;
  return { index, label: labels[index] ?? String(index), score: scores[start + index]! };
}
