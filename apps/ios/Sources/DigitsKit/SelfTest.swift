// Does the model compute here what it computed when it was compiled?
import Foundation

/// The outcome: signal to noise over all golden outputs (200 dB: equal), largest error.
public struct SelfTest: Sendable, Equatable {
    public let passed: Bool
    public let samples: Int
    public let sqnrDb: Double?
    public let maximumError: Double?

    static let equalDb = 200.0

    /// Replays the golden inputs; passed where the answers keep the signal to noise that was sealed.
    public static func run(_ model: Model) async throws -> SelfTest {
        var noise = 0.0
        var largest = 0.0
        for (inputs, wanted) in try Golden.read() {
            let got = try await model.predict(inputs, normalise: false)
            for (answers, golden) in zip(got.all, wanted) {
                for (answer, value) in zip(answers, golden) {
                    let difference = Double(answer) - Double(value)
                    noise += difference * difference
                    largest = max(largest, abs(difference))
                }
            }
        }
        let samples = Constants.goldenInvocations * Constants.batchSize
        guard noise.isFinite else { return SelfTest(passed: false, samples: samples, sqnrDb: nil, maximumError: nil) }
        let sqnrDb = noise > 0 ? min(equalDb, 10 * log10(Constants.goldenSignal / noise)) : equalDb
        return SelfTest(passed: sqnrDb >= Constants.minimumSqnrDb, samples: samples, sqnrDb: sqnrDb, maximumError: largest)
    }
}

enum Golden {
    /// The golden inputs and outputs, one pair an inference.
    static func read() throws -> [(Inputs, [[Float]])] {
        let data = try Data(contentsOf: Model.resource("golden.bin"))
        var offset = 0
        func take<Value>(_ tensor: Tensor, as type: Value.Type) -> [[Value]] {
            (0..<Constants.goldenInvocations).map { _ in
                let bytes = tensor.elements * MemoryLayout<Value>.size
                defer { offset += bytes }
                return data.subdata(in: offset..<offset + bytes).withUnsafeBytes { Array($0.bindMemory(to: type)) }
            }
        }
        let input0 = take(Constants.inputs[0], as: Float.self)
        let outputs = Constants.outputs.map { take($0, as: Float.self) }
        return (0..<Constants.goldenInvocations).map { index in
            (Inputs(image: input0[index]), outputs.map { $0[index] })
        }
    }
}
