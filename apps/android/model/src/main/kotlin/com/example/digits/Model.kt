// The model: `Model.load(context).predict(Inputs(...))`.
package com.example.digits

import android.content.Context
import android.os.Trace
import java.io.File
import java.security.MessageDigest
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext

/** What goes in; normalised here. Equality is that of the arrays' identity. */
class Inputs(
    /** 1 x 8 x 8 x 1, rows of interleaved pixels from 0 to 1 */
    val image: FloatArray,
)

/** What comes out. */
class Outputs(
    /** 1 x 10, logits */
    val logits: FloatArray,
) {
    /** The class with the largest score of one sample. */
    fun bestLogits(sample: Int = 0): Prediction =
        best(logits, LOGITS_LABELS, 10, sample)

    internal val all: List<FloatArray> get() = listOf(logits)
}

/** The loaded file. One inference at a time: concurrent calls wait for each other. */
class Model private constructor(internal val session: Session) : AutoCloseable {
    private val lock = Mutex()

    /** Returns the outputs; `normalise = false` for inputs that are normalised already. */
    suspend fun predict(inputs: Inputs, normalise: Boolean = true): Outputs =
        withContext(Dispatchers.Default) {
            lock.withLock {
                prepare(inputs, normalise)
                invoke()
                Outputs(OUTPUTS[0].decode(session.get(0)))
            }
        }

    internal fun prepare(inputs: Inputs, normalise: Boolean) {
        session.set(0, INPUTS[0].encode(inputs.image, normalise))
    }

    /** One inference, a section in system traces. */
    internal fun invoke() {
        Trace.beginSection("digits inference")
        try {
            session.invoke()
        } finally {
            Trace.endSection()
        }
    }

    override fun close() = session.close()

    companion object {
        /** Checks the file's SHA-256, then loads it; `IllegalStateException` where it is another file. */
        suspend fun load(context: Context, threads: Int = THREADS): Model =
            withContext(Dispatchers.IO) {
                val content = context.assets.open(MODEL_FILE).use { it.readBytes() }
                check(sha256(content) == MODEL_SHA256) { "$MODEL_FILE is not the file that was compiled" }
                // The runtime maps a file, and an asset is none.
                val file = File(context.noBackupFilesDir, MODEL_FILE)
                file.writeBytes(content)
                Trace.beginSection("digits load")
                try {
                    Model(Session(file.path, threads))
                } finally {
                    Trace.endSection()
                }
            }

        private fun sha256(content: ByteArray): String =
            MessageDigest.getInstance("SHA-256").digest(content).joinToString("") { "%02x".format(it) }
    }
}
