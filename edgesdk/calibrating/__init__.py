"""Calibrating: the latency coefficients of a device, from what is measured on it."""
