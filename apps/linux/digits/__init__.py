"""digits: the model, what goes in and what comes out."""

from .model import Inputs, Model, Outputs
from .self_test import run_self_test

__all__ = ["Inputs", "Model", "Outputs", "run_self_test"]
