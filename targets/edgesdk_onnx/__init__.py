"""ONNX for TensorRT: NVIDIA's runtime on Jetson boards; emits ``model.onnx``."""

from edgesdk_onnx.target import TARGET

__all__ = ["TARGET"]
