// Does the model compute here what it computed when it was compiled?
package com.example.digits

import android.content.Context
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.min

/** The outcome: signal to noise over all golden outputs (200 dB: equal), largest error. */
data class SelfTest(val passed: Boolean, val samples: Int, val sqnrDb: Double?, val maximumError: Double?)

private const val EQUAL_DB = 200.0

/** Replays the golden inputs; passed where the answers keep the signal to noise that was sealed. */
suspend fun runSelfTest(context: Context, model: Model): SelfTest {
    var noise = 0.0
    var largest = 0.0
    for ((inputs, wanted) in readGolden(context)) {
        val got = model.predict(inputs, normalise = false)
        got.all.zip(wanted).forEach { (answers, golden) ->
            answers.indices.forEach { index ->
                val difference = answers[index].toDouble() - golden[index]
                noise += difference * difference
                largest = max(largest, abs(difference))
            }
        }
    }
    val samples = GOLDEN_INVOCATIONS * BATCH_SIZE
    if (!noise.isFinite()) return SelfTest(false, samples, null, null)
    val sqnrDb = if (noise > 0) min(EQUAL_DB, 10 * log10(GOLDEN_SIGNAL / noise)) else EQUAL_DB
    return SelfTest(sqnrDb >= MINIMUM_SQNR_DB, samples, sqnrDb, largest)
}

/** Returns the golden inputs and outputs, one pair an inference. */
internal fun readGolden(context: Context): List<Pair<Inputs, List<FloatArray>>> {
    val bytes = context.assets.open("golden.bin").use { it.readBytes() }
    val buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
    fun floats(tensor: Tensor) = List(GOLDEN_INVOCATIONS) { FloatArray(tensor.elements) { buffer.float } }
    val input0 = floats(INPUTS[0])
    val outputs = OUTPUTS.map { floats(it) }
    return List(GOLDEN_INVOCATIONS) { index ->
        Inputs(input0[index]) to outputs.map { it[index] }
    }
}
