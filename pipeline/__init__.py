"""Streams of prompts through pipelines of agents: bounded before they start, accounted for when they stop.

    pipe = Pipeline(stages)
    async with pipe.open(prompts) as run:
        async for record in run.results: ...

The engine is here; what one puts into a pipeline is in `stages`.
"""

from pipeline.core.agent import Agent
from pipeline.core.budget import Budget
from pipeline.core.errors import (
    DefinitionError,
    Failure,
    InvariantError,
    ItemError,
    PipelineError,
    Problem,
    RunClosed,
    RunStopped,
    Skip,
    SourceError,
)
from pipeline.core.events import (
    AttemptEnded,
    BatchFlushed,
    CallEnded,
    EndpointChanged,
    Event,
    JoinDecided,
    LoopBlocked,
    ModelReplaced,
    RunStalled,
    TextStreamed,
)
from pipeline.core.item import Item
from pipeline.core.leaf import LeafStage
from pipeline.core.limits import Limits
from pipeline.core.members import Ended, Members
from pipeline.core.pipeline import Pipeline
from pipeline.core.ports import Sink, Source
from pipeline.core.record import Input, Record
from pipeline.core.run import Run
from pipeline.core.stage import Chain, Stage
from pipeline.core.state import ConversationState, Message
from pipeline.core.statistics import Statistics
from pipeline.core.usage import Cost, Usage
from pipeline.core.virtual import Stalled, virtual
from pipeline.core.visit import Visit

__all__ = [
    "Agent",
    "AttemptEnded",
    "BatchFlushed",
    "Budget",
    "CallEnded",
    "Chain",
    "ConversationState",
    "Cost",
    "DefinitionError",
    "Ended",
    "EndpointChanged",
    "Event",
    "Failure",
    "Input",
    "InvariantError",
    "Item",
    "ItemError",
    "JoinDecided",
    "LeafStage",
    "Limits",
    "LoopBlocked",
    "Members",
    "Message",
    "ModelReplaced",
    "Pipeline",
    "PipelineError",
    "Problem",
    "Record",
    "Run",
    "RunClosed",
    "RunStalled",
    "RunStopped",
    "Sink",
    "Skip",
    "Source",
    "SourceError",
    "Stage",
    "Stalled",
    "Statistics",
    "TextStreamed",
    "Usage",
    "Visit",
    "virtual",
]
