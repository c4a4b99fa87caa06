"""Running an artifact on its runtime, in a process of its own."""
