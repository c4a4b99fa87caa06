"""Tasks that nobody has to write: from a saved graph, a model folder, a library of models."""
