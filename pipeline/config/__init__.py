"""Describing: a pipeline as a file, read into definitions or into located problems, and nothing run or called."""
