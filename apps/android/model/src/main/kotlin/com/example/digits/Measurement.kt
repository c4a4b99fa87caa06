// Times the model and tells it as a measurement that edgesdk reads.
package com.example.digits

import android.content.Context
import android.os.Build
import android.os.PowerManager
import android.os.SystemClock
import java.time.Instant
import java.time.temporal.ChronoUnit
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import org.json.JSONObject

private const val WARMUP_RUNS = 10
private const val NANOSECONDS_PER_MS = 1e6

/** Returns a measurement (schema version 1): loading, first and warm inferences, self-test. */
suspend fun measure(context: Context, runs: Int = 100, threads: Int = THREADS): JSONObject =
    withContext(Dispatchers.Default) {
        val start = SystemClock.elapsedRealtimeNanos()
        val model = Model.load(context, threads)
        val loadMs = since(start)
        val measured = model.use {
            // Feeding the inputs is not the runtime's time.
            it.prepare(readGolden(context).first().first, normalise = false)
            val firstMs = time(it)
            repeat(WARMUP_RUNS) { _ -> time(it) }
            Triple(firstMs, DoubleArray(runs) { _ -> time(it) }.also { times -> times.sort() }, runSelfTest(context, it))
        }
        val (firstMs, times, test) = measured
        describe(threads, runs)
            .put("load_ms", loadMs)
            .put("first_ms", firstMs)
            .put("minimum_ms", times.first())
            .put("p50_ms", quantile(times, 0.5))
            .put("p90_ms", quantile(times, 0.9))
            .put("p99_ms", quantile(times, 0.99))
            .put("conditions", JSONObject().put("is_throttled", isThrottled(context)))
            .put(
                "self_test",
                JSONObject()
                    .put("status", if (test.passed) "passed" else "failed")
                    .put("samples", test.samples)
                    .put("sqnr_db", test.sqnrDb ?: JSONObject.NULL)
                    .put("maximum_error", test.maximumError ?: JSONObject.NULL),
            )
    }

private fun describe(threads: Int, runs: Int): JSONObject =
    JSONObject()
        .put("schema_version", 1)
        .put("artifact_sha256", MODEL_SHA256)
        .put("device", DEVICE)
        .put(
            "identity",
            JSONObject()
                .put("runtime", RUNTIME)
                .put("version", RUNTIME_VERSION)
                .put("platform", "android-${Build.SUPPORTED_ABIS.first()}")
                .put("unit", "cpu")
                .put("threads", threads),
        )
        .put("measured_by", "edgesdk integrate --app android")
        .put("measured_at", Instant.now().truncatedTo(ChronoUnit.SECONDS).toString())
        .put("batch_size", BATCH_SIZE)
        .put("warmup_runs", WARMUP_RUNS)
        .put("runs", runs)
        .put(
            "hardware",
            JSONObject()
                .put("model", "${Build.MANUFACTURER} ${Build.MODEL}")
                .put("processor", Build.HARDWARE)
                .put("system", "Android ${Build.VERSION.RELEASE}"),
        )

private fun time(model: Model): Double {
    val start = SystemClock.elapsedRealtimeNanos()
    model.invoke()
    return since(start)
}

private fun since(start: Long): Double = (SystemClock.elapsedRealtimeNanos() - start) / NANOSECONDS_PER_MS

/** The quantile of sorted times, interpolated between ranks. */
private fun quantile(sorted: DoubleArray, fraction: Double): Double {
    val position = fraction * (sorted.size - 1)
    val below = position.toInt()
    val above = minOf(below + 1, sorted.size - 1)
    return sorted[below] + (position - below) * (sorted[above] - sorted[below])
}

/** Whether the system slows itself down for heat; null before Android 10, which does not tell. */
private fun isThrottled(context: Context): Any {
    if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return JSONObject.NULL
    val power = context.getSystemService(PowerManager::class.java)
    return power.currentThermalStatus >= PowerManager.THERMAL_STATUS_MODERATE
}
