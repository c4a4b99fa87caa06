// What the manifest says of the model.

enum Constants {
    static let modelFile = "model.pte"
    static let artifactSha256 = "8839262e7f7e3ad761df8f93d89ba290e965d7b5422798e8b65f4aa05fde5433"
    /// Every file of the model, by its path below `modelFile`, and its SHA-256.
    static let fileSha256: [String: String] = [
        "": "8839262e7f7e3ad761df8f93d89ba290e965d7b5422798e8b65f4aa05fde5433",
    ]
    static let device = "raspberry_pi_5"
    static let batchSize = 1
    static let threads = 1
    static let goldenInvocations = 16
    /// What noise is compared with: the squared deviation of the golden outputs from their mean.
    static let goldenSignal: Double = 3185.5405
    static let minimumSqnrDb: Double = 40.0

    static let inputs: [Tensor] = [
        Tensor(
            name: "image",
            type: .float32,
            shape: [1, 1, 8, 8],
            strides: [64, 1, 8, 1],
            mean: [0.30506754],
            std: [0.37525913],
            channelAxis: 0
        ),
    ]
    static let outputs: [Tensor] = [
        Tensor(
            name: "logits",
            type: .float32,
            shape: [1, 10],
            strides: [10, 1],
            mean: [],
            std: [],
            channelAxis: 0
        ),
    ]
    static let logitsLabels: [String] = [
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
    ]
}
