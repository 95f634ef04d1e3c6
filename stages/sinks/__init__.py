"""Where records go: `JsonlSink` writes them whole, `RawSink` only what they say; `DeadLetters` keeps failures apart."""

from stages.sinks.dead_letters import DeadLetters
from stages.sinks.lines import JsonlSink, OpenSink, RawSink

__all__ = ["DeadLetters", "JsonlSink", "OpenSink", "RawSink"]
