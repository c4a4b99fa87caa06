"""Small graphs, runtimes and devices written by hand, for the cost model's tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from edgesdk.device import DeviceProfile, Runtime
from edgesdk.graph import Attribute, Op, OpGraph, TensorInfo
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity


class GraphBuilder:
    """Adds operators one after the other; each names its output after itself."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.tensors: dict[str, TensorInfo] = {}

    def tensor(
        self, name: str, *shape: int, role: Any = "activation", dtype: str = "float32"
    ) -> str:
        self.tensors[name] = TensorInfo(name=name, shape=shape, dtype=dtype, role=role)
        return name

    def op(
        self,
        name: str,
        kind: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        *,
        parameters: tuple[str, ...] = (),
        macs: int = 0,
        attributes: Mapping[str, Attribute] | None = None,
        role: Any = "activation",
    ) -> str:
        self.tensor(name, *shape, role=role)
        self.ops.append(
            Op(
                name=name,
                kind=kind,
                inputs=inputs,
                parameters=parameters,
                outputs=(name,),
                macs=macs,
                layer=name,
                attributes=attributes or {},
            )
        )
        return name

    def conv(
        self,
        name: str,
        source: str,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        **kwargs: Any,
    ) -> str:
        batch, before, rows, columns = self.tensors[source].shape
        weight = self.tensor(f"{name}.weight", channels, before, kernel, kernel, role="parameter")
        padding = kernel // 2
        out_rows = (rows + 2 * padding - kernel) // stride + 1
        out_columns = (columns + 2 * padding - kernel) // stride + 1
        attributes: dict[str, Attribute] = {
            "kernel_size": (kernel, kernel), "stride": (stride, stride), "dilation": (1, 1),
            "padding": (padding, padding), "groups": 1,
        }  # fmt: skip
        return self.op(
            name,
            "conv2d",
            (source,),
            (batch, channels, out_rows, out_columns),
            parameters=(weight,),
            macs=batch * channels * out_rows * out_columns * before * kernel * kernel,
            attributes=attributes,
            **kwargs,
        )

    def linear(self, name: str, source: str, features: int, **kwargs: Any) -> str:
        batch, before = self.tensors[source].shape
        weight = self.tensor(f"{name}.weight", features, before, role="parameter")
        bias = self.tensor(f"{name}.bias", features, role="parameter")
        return self.op(
            name,
            "linear",
            (source,),
            (batch, features),
            parameters=(weight, bias),
            macs=batch * before * features,
            **kwargs,
        )

    def same(self, name: str, kind: str, *sources: str, **kwargs: Any) -> str:
        return self.op(name, kind, sources, self.tensors[sources[0]].shape, **kwargs)

    def norm(self, name: str, source: str) -> str:
        channels = self.tensors[source].shape[1]
        parts = [self.tensor(f"{name}.{part}", channels, role="parameter") for part in "abcd"]
        return self.same(name, "batch_norm", source, parameters=tuple(parts))

    def build(self) -> OpGraph:
        return OpGraph(model="test", ops=tuple(self.ops), tensors=self.tensors)


def conv_chain(channels: int = 8, *, size: int = 8) -> OpGraph:
    """Image -> conv, batch norm, relu -> pool -> flatten -> linear."""
    g = GraphBuilder()
    g.tensor("image", 1, 3, size, size, role="input")
    g.conv("conv", "image", channels, kernel=3)
    g.norm("norm", "conv")
    g.same("relu", "relu", "norm")
    g.op("pool", "adaptive_avg_pool2d", ("relu",), (1, channels, 1, 1))
    g.op("flat", "flatten", ("pool",), (1, channels))
    g.linear("head", "flat", 10, role="output")
    return g.build()


def quantity(value: float) -> Quantity:
    return Quantity(value=value, source="a test", kind="estimated")


def precision(
    *,
    mac: float = 1e9,
    byte: float = 1e9,
    op: float = 1e-6,
    inference: float = 1e-5,
    error: float = 2.0,
) -> PrecisionCost:
    return PrecisionCost(
        mac_per_s=quantity(mac),
        bytes_per_s=quantity(byte),
        op_overhead_s=quantity(op),
        inference_overhead_s=quantity(inference),
        error_factor=quantity(error),
    )


def make_runtime(
    *,
    target: str = "tflite",
    runtime: str = "litert",
    delegate: str = "other",
    unit: Literal["cpu", "npu"] = "cpu",
    weights_in_ram: bool = True,
    integer_io: bool = True,
    **cost: float,
) -> Runtime:
    return Runtime(
        target=target,
        delegate=delegate,
        runtime=runtime,
        minimum_version="1",
        unit=unit,
        threads=1,
        channel_multiple=1,
        weights_in_ram=weights_in_ram,
        integer_io=integer_io,
        precisions={"fp32": precision(**cost), "int8": precision(**cost)},
    )


def make_device(*runtimes: Runtime) -> DeviceProfile:
    return DeviceProfile(
        schema_version=1,
        name="bench",
        title="Bench",
        kind="computer",
        processor="any",
        ram_bytes=quantity(1e9),
        runtime=runtimes or (make_runtime(),),
    )
