// Between an app's arrays and the file's: normalisation, layout, quantization, labels.
package com.example.digits

import kotlin.math.round

/**
 * One input or output of the file. `strides` say how far apart neighbours along each axis of
 * `shape` are in the other array; a `scale` of 0 means that the tensor is not quantized, else
 * real = scale * (integer - zeroPoint). `mean` and `std` vary along `channelAxis`.
 */
internal class Tensor(
    val name: String,
    val shape: LongArray,
    val strides: IntArray,
    val scale: Float,
    val zeroPoint: Int,
    val mean: FloatArray = floatArrayOf(),
    val std: FloatArray = floatArrayOf(),
    val channelAxis: Int = 0,
) {
    val elements: Int = shape.fold(1L) { product, size -> product * size }.toInt()

    /** For each element in the order of `shape`, where it is in the other array. */
    val sources: IntArray = IntArray(elements) { index -> positions(index).zip(strides.asList()) { p, s -> p * s }.sum() }

    private fun positions(index: Int): List<Int> {
        val result = IntArray(shape.size)
        var rest = index
        for (axis in shape.indices.reversed()) {
            result[axis] = rest % shape[axis].toInt()
            rest /= shape[axis].toInt()
        }
        return result.asList()
    }

    fun encode(values: FloatArray, normalise: Boolean): FloatArray {
        check(values.size)
        if (!normalise || mean.isEmpty()) return FloatArray(elements) { values[sources[it]] }
        return FloatArray(elements) { index ->
            val channel = if (mean.size == 1) 0 else positions(index)[channelAxis]
            (values[sources[index]] - mean[channel]) / std[channel]
        }
    }

    fun encode(values: IntArray): IntArray {
        check(values.size)
        return IntArray(elements) { values[sources[it]] }
    }

    fun encode(values: LongArray): LongArray {
        check(values.size)
        return LongArray(elements) { values[sources[it]] }
    }

    /** round(real / scale) + zeroPoint, half to even, clipped to int8. */
    fun quantize(values: FloatArray): ByteArray =
        ByteArray(values.size) {
            val steps = round(values[it] / scale) + zeroPoint
            (if (steps.isNaN()) -128f else steps.coerceIn(-128f, 127f)).toInt().toByte()
        }

    fun dequantize(values: ByteArray): FloatArray = FloatArray(values.size) { (values[it] - zeroPoint) * scale }

    fun decode(values: FloatArray): FloatArray {
        check(values.size)
        return FloatArray(elements) { values[sources[it]] }
    }

    private fun check(size: Int) = require(size == elements) { "$name has $size values, not $elements" }
}

/** The best class: its index, its label (the index as text where there is none), its score. */
data class Prediction(val index: Int, val label: String, val score: Float)

internal fun best(scores: FloatArray, labels: List<String>, classes: Int, sample: Int): Prediction {
    val start = sample * classes
    val index = (0 until classes).maxByOrNull { scores[start + it] } ?: 0
    return Prediction(index, labels.getOrElse(index) { it.toString() }, scores[start + index])
}
