"""Seeing a pipeline and its runs."""
