"""What the file format's operators are called in a traced model."""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "ABS": "abs", "ADD": "add", "AVERAGE_POOL_2D": "avg_pool2d", "BATCH_MATMUL": "matmul",
    "BROADCAST_TO": "expand", "CAST": "to", "CONCATENATION": "cat", "CONV_2D": "conv2d",
    "CONV_3D": "conv3d", "COS": "cos", "DEPTHWISE_CONV_2D": "conv2d", "DEPTH_TO_SPACE":
    "pixel_shuffle", "DIV": "div", "ELU": "elu", "EMBEDDING_LOOKUP": "embedding", "EQUAL": "eq",
    "EXP": "exp", "EXPAND_DIMS": "unsqueeze", "FULLY_CONNECTED": "linear", "GATHER": "gather",
    "GELU": "gelu", "GREATER": "gt", "GREATER_EQUAL": "ge", "HARD_SWISH": "hardswish",
    "LEAKY_RELU": "leaky_relu", "LESS": "lt", "LESS_EQUAL": "le", "LOG": "log",
    "LOGICAL_AND": "and", "LOGISTIC": "sigmoid", "LOG_SOFTMAX": "log_softmax", "MAXIMUM":
    "maximum", "MAX_POOL_2D": "max_pool2d", "MEAN": "mean", "MINIMUM": "minimum", "MIRROR_PAD":
    "pad", "MUL": "mul", "NEG": "neg", "NOT_EQUAL": "ne", "PACK": "stack", "PAD": "pad",
    "PADV2": "pad", "POW": "pow", "PRELU": "prelu", "REDUCE_MAX": "amax", "REDUCE_MIN": "amin",
    "RELU": "relu", "RELU6": "relu6", "RELU_N1_TO_1": "hardtanh", "RELU_0_TO_1": "hardtanh",
    "RESHAPE": "reshape", "RESIZE_BILINEAR": "upsample_bilinear2d", "RESIZE_NEAREST_NEIGHBOR":
    "upsample_nearest2d", "REVERSE_V2": "flip", "RSQRT": "rsqrt", "SELECT": "where",
    "SELECT_V2": "where", "SIN": "sin", "SLICE": "slice", "SOFTMAX": "softmax", "SPLIT": "split",
    "SPLIT_V": "split", "SQRT": "sqrt", "SQUEEZE": "squeeze", "STRIDED_SLICE": "slice",
    "SUB": "sub", "SUM": "sum", "TANH": "tanh", "TILE": "repeat", "TRANSPOSE": "permute",
    "TRANSPOSE_CONV": "conv_transpose2d", "UNIDIRECTIONAL_SEQUENCE_LSTM": "lstm",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "rnn_tanh", "UNPACK": "unbind",
}  # fmt: skip
"""The kinds that the cost model knows; an operator that is not here keeps its name."""

CONTROL_FLOW = frozenset(
    {"CALL", "CALL_ONCE", "IF", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE", "WHILE"}
)

WINDOWED = frozenset(
    {
        "AVERAGE_POOL_2D", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "L2_POOL_2D", "MAX_POOL_2D",
        "TRANSPOSE_CONV",
    }
)  # fmt: skip
"""Operators that move a window over an image, with a stride and a padding."""

ACTIVATIONS: Mapping[int, str] = {1: "relu", 2: "hardtanh", 3: "relu6", 4: "tanh", 5: "sign"}
"""``ActivationFunctionType`` of the schema; 0 is none."""
