// The model: `try await Model().predict(Inputs(...))`.
import CryptoKit
import Foundation
import os

/// What goes in; normalised here.
public struct Inputs: Sendable {
    /// 1 x 8 x 8 x 1, rows of interleaved pixels from 0 to 1
    public var image: [Float]

    public init(image: [Float]) {
        self.image = image
    }
}

/// What comes out.
public struct Outputs: Sendable {
    /// 1 x 10, logits
    public let logits: [Float]

    var all: [[Float]] { [logits] }

    /// The class with the largest score of one sample.
    public func bestLogits(sample: Int = 0) -> Prediction {
        Prediction.best(logits, labels: Constants.logitsLabels, classes: 10, sample: sample)
    }
}

/// The loaded model. An actor: one inference at a time, off the main thread.
public actor Model {
    private let session: Session
    private static let signposter = OSSignposter(subsystem: "edgesdk.digits", category: "model")

    /// Checks the SHA-256 of every file of the model, then loads it.
    public init() async throws {
        let url = try Self.resource(Constants.modelFile)
        try Self.checkHashes(of: url)
        let state = Self.signposter.beginInterval("load")
        defer { Self.signposter.endInterval("load", state) }
        session = try await Session(url: url)
    }

    /// Returns the outputs; `normalise: false` for inputs that are normalised already.
    public func predict(_ inputs: Inputs, normalise: Bool = true) throws -> Outputs {
        try prepare(inputs, normalise: normalise)
        try invoke()
        return Outputs(
            logits: try Constants.outputs[0].arranged(session.get(0))
        )
    }

    func prepare(_ inputs: Inputs, normalise: Bool) throws {
        try session.set(0, Constants.inputs[0].encoded(inputs.image, normalise: normalise))
    }

    /// One inference, an interval in Instruments.
    func invoke() throws {
        try Self.signposter.withIntervalSignpost("inference") { try session.invoke() }
    }

    /// The milliseconds that one inference takes, the inputs being set.
    func timeInvoke() throws -> Double {
        let elapsed = try ContinuousClock().measure { try invoke() }
        return elapsed.milliseconds
    }

    static func resource(_ name: String) throws -> URL {
        guard let url = Bundle.module.url(forResource: name, withExtension: nil) else { throw ModelError.missing(name) }
        return url
    }

    private static func checkHashes(of url: URL) throws {
        for (path, expected) in Constants.fileSha256 {
            let file = path.isEmpty ? url : url.appendingPathComponent(path)
            let digest = SHA256.hash(data: try Data(contentsOf: file, options: .mappedIfSafe))
            guard digest.map({ String(format: "%02x", $0) }).joined() == expected else {
                throw ModelError.differs(file.lastPathComponent)
            }
        }
    }
}

extension Duration {
    var milliseconds: Double {
        Double(components.seconds) * 1e3 + Double(components.attoseconds) * 1e-15
    }
}
