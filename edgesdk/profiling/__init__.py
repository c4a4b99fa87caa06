"""Measuring a finished artifact on a device, by one of several runners."""
