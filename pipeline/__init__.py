"""Streams of prompts through pipelines of agents: bounded before they start, accounted for when they stop.

    pipe = Pipeline(stages)
    async with pipe.open(prompts) as run:
        async for record in run.results: ...

The engine is here; what one puts into a pipeline is in `stages`.
"""

TYPE_CHECKING = False  # as `typing` has it, which would be imported for that alone

if TYPE_CHECKING:
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

#: Where the names are. They are imported when they are asked for, so that the command, whose entry is in this package
#: too, can be interrupted quietly from its first moment.
_MODULES = (
    ("pipeline.core.agent", ("Agent",)),
    ("pipeline.core.budget", ("Budget",)),
    (
        "pipeline.core.errors",
        (
            "DefinitionError",
            "Failure",
            "InvariantError",
            "ItemError",
            "PipelineError",
            "Problem",
            "RunClosed",
            "RunStopped",
            "Skip",
            "SourceError",
        ),
    ),
    (
        "pipeline.core.events",
        (
            "AttemptEnded",
            "BatchFlushed",
            "CallEnded",
            "EndpointChanged",
            "Event",
            "JoinDecided",
            "LoopBlocked",
            "ModelReplaced",
            "RunStalled",
            "TextStreamed",
        ),
    ),
    ("pipeline.core.item", ("Item",)),
    ("pipeline.core.leaf", ("LeafStage",)),
    ("pipeline.core.limits", ("Limits",)),
    (
        "pipeline.core.members",
        (
            "Ended",
            "Members",
        ),
    ),
    ("pipeline.core.pipeline", ("Pipeline",)),
    (
        "pipeline.core.ports",
        (
            "Sink",
            "Source",
        ),
    ),
    (
        "pipeline.core.record",
        (
            "Input",
            "Record",
        ),
    ),
    ("pipeline.core.run", ("Run",)),
    (
        "pipeline.core.stage",
        (
            "Chain",
            "Stage",
        ),
    ),
    (
        "pipeline.core.state",
        (
            "ConversationState",
            "Message",
        ),
    ),
    ("pipeline.core.statistics", ("Statistics",)),
    (
        "pipeline.core.usage",
        (
            "Cost",
            "Usage",
        ),
    ),
    (
        "pipeline.core.virtual",
        (
            "Stalled",
            "virtual",
        ),
    ),
    ("pipeline.core.visit", ("Visit",)),
)

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


def __getattr__(name: str) -> object:
    from importlib import import_module

    for module, names in _MODULES:
        if name in names:
            found: object = getattr(import_module(module), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
