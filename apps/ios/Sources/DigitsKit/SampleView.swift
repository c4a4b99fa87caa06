// Self-test on appearing, a benchmark on a button, the measurement to share.
import SwiftUI

public struct SampleView: View {
    @State private var status = "Loading…"
    @State private var measurement: String?
    @State private var isBusy = false

    public init() {}

    public var body: some View {
        VStack(alignment: .leading, spacing: 16) {
            Text(status)
            Button("Benchmark") { run { try await benchmark() } }
                .disabled(isBusy)
            if let measurement {
                ShareLink("Share the measurement", item: measurement)
                ScrollView { Text(measurement).font(.caption.monospaced()).textSelection(.enabled) }
            }
        }
        .padding()
        .task { run { try await selfTest() } }
    }

    private func run(_ work: @escaping @MainActor () async throws -> Void) {
        isBusy = true
        Task { @MainActor in
            defer { isBusy = false }
            do {
                try await work()
            } catch {
                status = "Failed: \(error)"
            }
        }
    }

    @MainActor
    private func selfTest() async throws {
        let test = try await SelfTest.run(Model())
        let noise = test.sqnrDb.map { String(format: "%.1f dB", $0) } ?? "not finite"
        status = "Self-test \(test.passed ? "passed" : "FAILED"): \(test.samples) samples, \(noise)"
    }

    @MainActor
    private func benchmark() async throws {
        let made = try await Measurement.make()
        measurement = String(decoding: made.json, as: UTF8.self)
        status = "Measured"
    }
}
