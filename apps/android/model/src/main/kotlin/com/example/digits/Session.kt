// LiteRT's compiled model, as this file needs it.
package com.example.digits

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.TensorBuffer

internal const val RUNTIME = "litert"
internal const val RUNTIME_VERSION = "2.3.0"

/** A loaded file: set the inputs, invoke, read the outputs. `invoke` is what is timed. */
internal class Session(path: String, threads: Int) : AutoCloseable {
    private val model: CompiledModel =
        CompiledModel.create(
            path,
            CompiledModel.Options(Accelerator.CPU).apply { cpuOptions = CompiledModel.CpuOptions(numThreads = threads) },
        )
    private val inputs: Map<String, TensorBuffer> = INPUTS.associate { it.name to model.createInputBuffer(it.name) }
    private val outputs: Map<String, TensorBuffer> = OUTPUTS.associate { it.name to model.createOutputBuffer(it.name) }

    fun set(index: Int, values: FloatArray) {
        val tensor = INPUTS[index]
        val buffer = inputs.getValue(tensor.name)
        if (tensor.scale == 0f) buffer.writeFloat(values) else buffer.writeInt8(tensor.quantize(values))
    }

    fun set(index: Int, values: IntArray) = inputs.getValue(INPUTS[index].name).writeInt(values)

    fun invoke() = model.run(inputs, outputs)

    fun get(index: Int): FloatArray {
        val tensor = OUTPUTS[index]
        val buffer = outputs.getValue(tensor.name)
        return if (tensor.scale == 0f) buffer.readFloat() else tensor.dequantize(buffer.readInt8())
    }

    override fun close() {
        (inputs.values + outputs.values).forEach { it.close() }
        model.close()
    }
}
