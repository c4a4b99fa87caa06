// Times the model and tells it as a measurement that edgesdk reads.
import Foundation

/// A measurement (schema version 1): loading, first and warm inferences, self-test.
public struct Measurement: Sendable {
    static let warmupRuns = 10

    /// The document as JSON.
    public let json: Data

    public static func make(runs: Int = 100) async throws -> Measurement {
        let clock = ContinuousClock()
        let start = clock.now
        let model = try await Model()
        let loadMs = start.duration(to: clock.now).milliseconds
        guard let golden = try Golden.read().first else { throw ModelError.missing("golden.bin") }
        // Feeding the inputs is not the runtime's time.
        try await model.prepare(golden.0, normalise: false)
        let firstMs = try await model.timeInvoke()
        for _ in 0..<warmupRuns { _ = try await model.timeInvoke() }
        var times: [Double] = []
        for _ in 0..<runs { times.append(try await model.timeInvoke()) }
        times.sort()
        let test = try await SelfTest.run(model)
        var document = description(runs: runs)
        document["load_ms"] = loadMs
        document["first_ms"] = firstMs
        document["minimum_ms"] = times[0]
        document["p50_ms"] = quantile(times, 0.5)
        document["p90_ms"] = quantile(times, 0.9)
        document["p99_ms"] = quantile(times, 0.99)
        document["self_test"] = [
            "status": test.passed ? "passed" : "failed",
            "samples": test.samples,
            "sqnr_db": test.sqnrDb.map { $0 as Any } ?? NSNull(),
            "maximum_error": test.maximumError.map { $0 as Any } ?? NSNull(),
        ] as [String: Any]
        return Measurement(json: try JSONSerialization.data(withJSONObject: document, options: [.prettyPrinted, .sortedKeys]))
    }

    private static func description(runs: Int) -> [String: Any] {
        let process = ProcessInfo.processInfo
        return [
            "schema_version": 1,
            "artifact_sha256": Constants.artifactSha256,
            "device": Constants.device,
            "identity": [
                "runtime": Session.runtime,
                "version": Session.version,
                "platform": "ios-arm64",
                "unit": Session.unit,
                "threads": Constants.threads,
            ] as [String: Any],
            "measured_by": "edgesdk integrate --app ios",
            "measured_at": ISO8601DateFormatter().string(from: Date()),
            "batch_size": Constants.batchSize,
            "warmup_runs": warmupRuns,
            "runs": runs,
            "hardware": ["model": machine(), "system": process.operatingSystemVersionString],
            "conditions": [
                "is_throttled": process.thermalState == .serious || process.thermalState == .critical,
                "power_mode": process.isLowPowerModeEnabled ? "low power" : "normal",
            ] as [String: Any],
        ]
    }

    /// The device's own name for its model, as in "iPhone15,2".
    private static func machine() -> String {
        var system = utsname()
        uname(&system)
        return withUnsafeBytes(of: &system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// The quantile of sorted times, interpolated between ranks.
    private static func quantile(_ sorted: [Double], _ fraction: Double) -> Double {
        let position = fraction * Double(sorted.count - 1)
        let below = Int(position)
        let above = min(below + 1, sorted.count - 1)
        return sorted[below] + (position - Double(below)) * (sorted[above] - sorted[below])
    }
}
