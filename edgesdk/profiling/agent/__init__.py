"""Measure an artifact on the machine that it lies on.

``edgesdk.profiling.agent_file`` makes one file of this package, which runs on a board by itself:
``python agent.pyz OUT -o measurement.json``. It needs Python 3.10, numpy and the runtime that the
artifact is for (LiteRT's or ExecuTorch's wheel, or TensorRT's program ``trtexec``), and imports
nothing else but its own modules.

It checks the artifact's hashes and the runtime's version, replays the golden vectors, and writes
the Measurement JSON that docs/concepts/measurement.md describes. What it cannot read is null, and a
note says so where a reader would look for it. Exit code 9 with one line on standard error: it could
not be measured.
"""
