"""LiteRT, TensorFlow Lite and TensorFlow Lite Micro: one ``model.tflite`` for all three."""

from edgesdk_tflite.target import TFLiteTarget

__all__ = ["TARGET"]

TARGET = TFLiteTarget()
