"""The Core ML target of edgesdk: ``TARGET`` is what the entry point names."""

from edgesdk_coreml.target import CoreMLTarget

TARGET = CoreMLTarget()

__all__ = ["TARGET"]
