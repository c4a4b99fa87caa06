// Self-test on start, a benchmark on a button; the measurement is shown, logged and kept as a file.
package com.example.digits.sample

import com.example.digits.Model
import com.example.digits.measure
import com.example.digits.runSelfTest
import android.app.Activity
import android.os.Bundle
import android.util.Log
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import java.io.File
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

class MainActivity : Activity() {
    private val scope = MainScope()

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val text = TextView(this).apply { setTextIsSelectable(true) }
        val button = Button(this).apply { this.text = "Benchmark" }
        val column = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            fitsSystemWindows = true
            addView(button)
            addView(ScrollView(context).apply { addView(text) })
        }
        setContentView(column)
        button.setOnClickListener {
            button.isEnabled = false
            scope.launch {
                text.text = benchmark()
                button.isEnabled = true
            }
        }
        scope.launch { text.text = selfTest() }
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }

    private suspend fun selfTest(): String =
        Model.load(this).use { model ->
            val test = runSelfTest(this, model)
            "Self-test ${if (test.passed) "passed" else "FAILED"}: ${test.samples} samples, ${test.sqnrDb} dB"
        }

    /** Pull the file with: adb pull /sdcard/Android/data/com.example.digits.sample/files/measurement.json */
    private suspend fun benchmark(): String {
        val measurement = measure(this).toString(2)
        File(getExternalFilesDir(null), "measurement.json").writeText(measurement)
        Log.i("edgesdk", measurement)
        return measurement
    }
}
