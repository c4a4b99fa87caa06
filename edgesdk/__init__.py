"""edgesdk: compile a trained PyTorch network for a device, under a budget, with proof."""
