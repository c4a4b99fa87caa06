"""TensorRT's side of a file: which operators its parser reads, and how an engine is built."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.scheme import Scheme

OPSET = 18
IR_VERSION = 8
"""ONNX 1.13: what the parser of TensorRT 8.6 was built with (onnx-tensorrt, docs/Changelog.md)."""
MINIMUM_VERSION = (10, 0)
"""10.0 took the last of what is used: 8.0 brought scales per channel, 8.6 LayerNormalization and
opset 18, 9.0 int64 inputs, 10.0 its own InstanceNormalization (the same changelog)."""

_OPTIONS: Mapping[Scheme, str] = {"fp32": "", "fp16": "--stronglyTyped ", "int8": "--int8 --fp16 "}


def engine_command(file: str, scheme: Scheme, *, float16: bool = True) -> str:
    """Return the command that builds, on the device, the engine that TensorRT loads.

    An fp16 file states every type, and the engine keeps to it. What an int8 file leaves in float
    the engine may compute in float16, unless that cannot hold the values (``float16=False``).
    Shapes are not given: the file's are fixed, and trtexec refuses ``--shapes`` for such a file.
    """
    options = _OPTIONS[scheme] if float16 else _OPTIONS[scheme].replace("--fp16 ", "")
    return f"trtexec --onnx={file} {options}--saveEngine={file.removesuffix('.onnx')}.engine"


# Marked as supported in docs/operators.md of onnx-tensorrt for TensorRT 8.5, and what the
# changelog adds until 10.0. Operators that torch's exporter never writes are left out.
_READ = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
    DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather
    GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GridSample GroupNormalization GRU HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul
    Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormalLike
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
    RoiAlign Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
    Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile
    TopK Transpose Trilu Unsqueeze Where Xor
"""
OPERATORS = frozenset(_READ.split())
