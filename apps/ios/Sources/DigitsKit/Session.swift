// ExecuTorch's module, as this package needs it.
import ExecuTorch
import Foundation

/// A loaded file: set the inputs, invoke, read the outputs. `invoke` is what is timed.
final class Session {
    static let runtime = "executorch"
    static let version = "1.5.1"
    static let unit = "cpu"

    private let module: Module
    private var inputs: [Value]
    private var outputs: [Value] = []

    init(url: URL) async throws {
        module = Module(filePath: url.path)
        inputs = [Value](repeating: Value(), count: Constants.inputs.count)
        try module.load("forward")
    }

    func set(_ index: Int, _ values: [Float]) throws {
        inputs[index] = Value(ExecuTorch.Tensor<Float>(values, shape: Constants.inputs[index].shape).anyTensor)
    }

    func set(_ index: Int, _ values: [Int32]) throws {
        inputs[index] = Value(ExecuTorch.Tensor<Int32>(values, shape: Constants.inputs[index].shape).anyTensor)
    }

    func set(_ index: Int, _ values: [Int64]) throws {
        inputs[index] = Value(ExecuTorch.Tensor<Int64>(values, shape: Constants.inputs[index].shape).anyTensor)
    }

    func invoke() throws {
        outputs = try module.forward(inputs)
    }

    func get(_ index: Int) throws -> [Float] {
        guard index < outputs.count, let tensor: ExecuTorch.Tensor<Float> = outputs[index].tensor() else {
            throw ModelError.missing(Constants.outputs[index].name)
        }
        return tensor.scalars()
    }
}
