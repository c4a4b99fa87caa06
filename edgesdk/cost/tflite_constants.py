"""The constants of a ``.tflite``: weights, biases, and the numbers that operators read."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.cost.file_form import FileForm, FormOp, FormTensor
from edgesdk.cost.fusion import BIAS_BYTES, Kernel
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import ACTIVATION_BYTES, CALIBRATED_SCHEMES, GROUP_SIZE, WEIGHT_BYTES, Scheme

ARGUMENT_ELEMENTS: Mapping[str, int] = {
    "MEAN": 2, "SUM": 2, "RESHAPE": 2, "TRANSPOSE": 4, "PAD": 8, "RESIZE_NEAREST_NEIGHBOR": 2,
    "RESIZE_BILINEAR": 2,
}  # fmt: skip
"""Operators that read a short list of integers (axes, sizes) as a constant: how many."""


class TfliteConstants:
    """The constants of a form that is being written; each method returns a tensor's number."""

    def __init__(self, graph: OpGraph, scheme: Scheme, found: FileForm) -> None:
        self.graph, self.scheme, self.found = graph, scheme, found
        self.is_static = scheme in CALIBRATED_SCHEMES
        # Whatever is stored narrower, LiteRT's activations are float32 unless they are integers.
        self.activation_bytes = ACTIVATION_BYTES[scheme] if self.is_static else 4
        self.number_of: dict[object, int] = {}

    def bias(self, op: Op, channels: int, scheme: Scheme) -> int:
        """Add a layer's bias. Layers that share weights share it, but where it is an integer, whose
        scales hang on the layer's input."""
        key = ("bias", op.parameters)
        is_static = scheme in CALIBRATED_SCHEMES
        if key not in self.number_of or is_static:
            self.number_of[key] = self.found.add(
                FormTensor(
                    elements=channels,
                    element_bytes=BIAS_BYTES[scheme] if is_static else 4,
                    rank=1,
                    scales=channels if is_static else 0,
                    is_constant=True,
                    layer=op.layer,
                )
            )
        return self.number_of[key]

    def weight(self, op: Op, kernel: Kernel, scheme: Scheme) -> int:
        """Add a layer's weight, and behind it the DEQUANTIZE of a weight that only is stored."""
        rank = 2 if op.kind == "linear" else 4
        shared = ("weight", op.parameters[0], scheme)
        if shared in self.number_of:
            return self.number_of[shared]
        weight = self.found.add(
            FormTensor(
                elements=kernel.weights,
                element_bytes=WEIGHT_BYTES[scheme],
                rank=rank,
                scales=kernel.biases if scheme in ("int8", "w8a16", "int8_dynamic") else 0,
                is_constant=True,
                layer=op.layer,
            )
        )
        if scheme == "int4_dynamic":
            # The scales of the blocks are a constant of their own, in float16.
            self.found.add(
                FormTensor(
                    elements=kernel.weights // GROUP_SIZE,
                    element_bytes=2,
                    rank=2,
                    is_constant=True,
                    layer=op.layer,
                )
            )
        self.number_of[shared] = weight
        if scheme != "fp16":
            return weight
        index = self.found.add(
            FormTensor(elements=kernel.weights, element_bytes=4, rank=rank, layer=op.layer)
        )
        self.found.ops.append(FormOp(operator="DEQUANTIZE", inputs=(weight,), outputs=(index,)))
        self.number_of[shared] = index
        return index

    def parameter(self, name: str, layer: str) -> int:
        """Return a parameter of an operator that is no layer with a weight."""
        if name not in self.number_of:
            tensor = self.graph.tensors[name]
            self.number_of[name] = self.vector(tensor.elements, layer, wide=False)
        return self.number_of[name]

    def vector(self, elements: int, layer: str, *, wide: bool = True) -> int:
        """Add a constant of one dimension, of four bytes an element if ``wide``."""
        return self.found.add(
            FormTensor(
                elements=elements,
                element_bytes=4 if wide else self.activation_bytes,
                rank=1,
                scales=int(self.is_static),
                is_constant=True,
                layer=layer,
            )
        )

    def whole(self, key: object, elements: int, layer: str) -> int:
        """Return a constant of integers; equal ones are stored once."""
        if key not in self.number_of:
            tensor = FormTensor(
                elements=elements, element_bytes=4, rank=1, is_constant=True, layer=layer
            )
            self.number_of[key] = self.found.add(tensor)
        return self.number_of[key]

    def scalar(self, meaning: str) -> int:
        """Return a small constant that all operators share."""
        if meaning not in self.number_of:
            self.number_of[meaning] = self.vector(1, "")
        return self.number_of[meaning]

    def argument(self, operator: str, op: Op) -> int:
        """Return the integers an operator reads; equal ones are stored once."""
        shape = self.graph.tensors[op.outputs[0]].shape
        key = (operator, shape if operator == "RESHAPE" or operator.startswith("RESIZE") else ())
        return self.whole(key, ARGUMENT_ELEMENTS[operator], op.layer)

    def table(self, op: Op) -> int:
        """Return an embedding's table: as narrow as a layer's weights, with a scale for each row
        where its type is int8."""
        tensor = self.graph.tensors[op.parameters[0]]
        narrow = self.scheme in ("int8_dynamic", "int4_dynamic")
        key = ("weight", op.parameters[0])
        if key not in self.number_of:
            weight = FormTensor(
                elements=tensor.elements,
                element_bytes=WEIGHT_BYTES["int8_dynamic" if narrow else self.scheme],
                rank=2,
                scales=tensor.shape[0] if narrow else int(self.is_static),
                is_constant=True,
                layer=op.layer,
            )
            self.number_of[key] = self.found.add(weight)
        return self.number_of[key]
