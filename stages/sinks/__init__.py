"""Where records go: `JsonlSink` writes them whole, `RawSink` only what they say."""

from stages.sinks.lines import JsonlSink, OpenSink, RawSink

__all__ = ["JsonlSink", "OpenSink", "RawSink"]
