"""QNN, Qualcomm's NPU: why nothing is emitted for it.

``executorch.backends.qualcomm`` is never imported: starting it without the SDK downloads one.
"""

from __future__ import annotations

import os

NAME = "qnn"
SDK = "QNN_SDK_ROOT"


def refusal() -> str:
    """Return why there is no file for QNN, and what to do; by the environment alone."""
    instead = "target tflite reaches the same NPU through LiteRT's Qualcomm delegate"
    if not os.environ.get(SDK):
        return (
            f"the qnn delegate needs Qualcomm's AI Engine Direct SDK, and {SDK} names none: "
            f"{instead}"
        )
    return (
        f"{SDK} is set, but no file for the qnn delegate has ever been emitted and checked here: "
        f"{instead}, or lower the model with ExecuTorch's own QnnPartitioner"
    )
