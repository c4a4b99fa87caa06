// Between an app's arrays and the file's: normalisation, layout, labels.

enum ElementType: Sendable {
    case float32, float16, int32, int64
}

/// One input or output of the file. `strides` say how far apart neighbours along each axis of
/// `shape` are in the other array; `mean` and `std` vary along `channelAxis`.
struct Tensor: Sendable {
    let name: String
    let type: ElementType
    let shape: [Int]
    let strides: [Int]
    let mean: [Float]
    let std: [Float]
    let channelAxis: Int

    var elements: Int { shape.reduce(1, *) }

    /// The array in the order of `shape`, taken from the other array.
    func arranged<Value>(_ values: [Value], visit: (Value, Int) -> Value = { value, _ in value }) throws -> [Value] {
        guard values.count == elements else {
            throw ModelError.wrongCount(name: name, found: values.count, expected: elements)
        }
        var position = [Int](repeating: 0, count: shape.count)
        var from = 0
        var result: [Value] = []
        result.reserveCapacity(elements)
        for _ in 0..<elements {
            result.append(visit(values[from], position[channelAxis]))
            for axis in shape.indices.reversed() {
                from += strides[axis]
                position[axis] += 1
                if position[axis] < shape[axis] { break }
                from -= strides[axis] * shape[axis]
                position[axis] = 0
            }
        }
        return result
    }

    /// An app's values as the file takes them.
    func encoded(_ values: [Float], normalise: Bool) throws -> [Float] {
        guard normalise, !mean.isEmpty else { return try arranged(values) }
        return try arranged(values) { value, along in
            let channel = mean.count == 1 ? 0 : along
            return (value - mean[channel]) / std[channel]
        }
    }
}

/// The best class: its index, its label (the index as text where there is none), its score.
public struct Prediction: Sendable, Equatable {
    public let index: Int
    public let label: String
    public let score: Float

    static func best(_ scores: [Float], labels: [String], classes: Int, sample: Int) -> Prediction {
        let start = sample * classes
        let index = (0..<classes).max { scores[start + $0] < scores[start + $1] } ?? 0
        return Prediction(index: index, label: labels.isEmpty ? String(index) : labels[index], score: scores[start + index])
    }
}

public enum ModelError: Error, Equatable {
    case missing(String)
    case differs(String)
    case wrongCount(name: String, found: Int, expected: Int)
}
