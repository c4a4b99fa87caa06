"""The stages of the pipeline, one a file: each turns what the stage before it gave into more."""
