"""What a network costs on a device: latency, memory and size, from an OpGraph and a profile."""
