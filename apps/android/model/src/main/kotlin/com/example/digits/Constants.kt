// What the manifest says of the model.
package com.example.digits

internal const val MODEL_FILE = "model.tflite"
internal const val MODEL_SHA256 = "d9415876d067863c7a8593b0a4891a65511f58d79a05d7fba4d84d339d32d632"
internal const val DEVICE = "google_pixel_8"
internal const val BATCH_SIZE = 1
internal const val THREADS = 1
internal const val GOLDEN_INVOCATIONS = 16

// What noise is compared with: the squared deviation of the golden outputs from their mean.
internal const val GOLDEN_SIGNAL = 3186.27
internal const val MINIMUM_SQNR_DB = 40.0

internal val INPUTS = listOf(
    Tensor(
        name = "image",
        shape = longArrayOf(1, 8, 8, 1),
        strides = intArrayOf(64, 8, 1, 1),
        scale = 0.0f,
        zeroPoint = 0,
        mean = floatArrayOf(0.30506754f),
        std = floatArrayOf(0.37525913f),
        channelAxis = 0,
    ),
)

internal val OUTPUTS = listOf(
    Tensor(
        name = "logits",
        shape = longArrayOf(1, 10),
        strides = intArrayOf(10, 1),
        scale = 0.0f,
        zeroPoint = 0,
    ),
)

/** The classes of `logits` in order; empty where the task named none. */
val LOGITS_LABELS: List<String> = listOf(
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
)
