"""The operators of TensorFlow Lite Micro and the method of its resolver that adds each.

As in tensorflow/lite/micro/micro_mutable_op_resolver.h of github.com/tensorflow/tflite-micro at
90b983c2 (August 2026).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgesdk.errors import UnsupportedModel

# Names that do not follow from the schema's by making each word's first letter large.
_IRREGULAR: Mapping[str, str] = {
    "AVERAGE_POOL_2D": "AveragePool2D", "BATCH_MATMUL": "BatchMatMul", "CONV_2D": "Conv2D",
    "CUMSUM": "CumSum", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "L2_POOL_2D": "L2Pool2D",
    "MAX_POOL_2D": "MaxPool2D", "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
    "CUSTOM ethos-u": "EthosU",
}  # fmt: skip
_REGULAR = frozenset(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO
    CALL_ONCE CAST CEIL CONCATENATION COS DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU
    EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER
    GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MEAN MINIMUM MIRROR_PAD MUL NEG
    NOT_EQUAL PACK PAD PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6
    RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE
    SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE
    STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV UNPACK VAR_HANDLE WHILE ZEROS_LIKE
    """.split()  # noqa: SIM905 - a hundred names read better so
)


def resolver_methods(operators: Iterable[str]) -> tuple[str, ...]:
    """Return the methods that add exactly those operators, each once, sorted.

    Raises ``UnsupportedModel`` for operators that TensorFlow Lite Micro does not have.
    """
    names = sorted(set(operators))
    unknown = [name for name in names if name not in _REGULAR and name not in _IRREGULAR]
    if unknown:
        raise UnsupportedModel(
            f"TensorFlow Lite Micro has no {', '.join(unknown)}",
            expected="an artifact that was compiled for a microcontroller",
        )
    return tuple(f"Add{_IRREGULAR.get(name) or _regular(name)}" for name in names)


def _regular(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
