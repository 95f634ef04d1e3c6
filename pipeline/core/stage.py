"""What a stage is: a frozen description with one method that runs it between two bounded ends.

    async def run(self, inbox, outbox, scope) -> None

It returns when the inbox ends, resolves each item it received exactly once, and treats a downstream that has left as a
quiet stop. Only the engine and composites write `run`; everyone else writes `process`, see `pipeline.core.leaf`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, cast

from pipeline.core.errors import DefinitionError, Failure, Problem
from pipeline.core.names import Fields
from pipeline.core.ports import Resource
from pipeline.core.streams import Inbox, Outbox

if TYPE_CHECKING:
    from pipeline.core.scope import Scope

ErrorAction: TypeAlias = Literal["dead_letter", "skip", "fail"]
OnError: TypeAlias = ErrorAction | Callable[[Failure], ErrorAction]

#: what goes into a body: the item itself, also several times, a part of it, all its outputs, a round of it, several
#: items, one of a line
Role: TypeAlias = Literal["branch", "sample", "part", "gather", "round", "batch", "line"]

ERROR_ACTIONS: tuple[ErrorAction, ...] = ("dead_letter", "skip", "fail")


class Template(Protocol):
    """What the engine needs to know of a template or expression: the names that it reads."""

    @property
    def source(self) -> str: ...

    @property
    def names(self) -> frozenset[str]: ...

    @property
    def paths(self) -> frozenset[tuple[str, ...]]: ...


@dataclass(frozen=True)
class Stage(ABC):
    """A unit connected by streams: a frozen value that can be printed, compared and used for any number of runs."""

    name: str

    #: fields that hold a function of the user's, which debug mode watches
    functions: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        name = cast("object", self.name)
        if not isinstance(name, str):
            what = "a stage" if isinstance(name, Stage) else f"{name!r:.60}"
            raise DefinitionError(Problem(None, "name", f"the name of a stage is text, got {what}"))

    @abstractmethod
    async def run(self, inbox: Inbox, outbox: Outbox, scope: Scope) -> None:
        """Work until the inbox ends. Cancellation ends it at once; items in hand are resolved as cancelled."""

    def __or__(self, other: object) -> Chain:
        return Chain.of(self, other)

    def __ror__(self, other: object) -> Chain:
        return Chain.of(other, self)

    # What the pipeline asks of a definition before it runs it. A leaf without templates or bodies keeps these.

    def parts(self) -> tuple[Stage, ...]:
        """The stages that are wired for this one, in order."""
        return (self,)

    def bodies(self) -> Mapping[str, Body]:
        """The inner networks of a composite, by label."""
        return {}

    def templates(self) -> Mapping[str, Template]:
        """Templates and expressions, by option."""
        return {}

    @property
    def buffer_size(self) -> int:
        """Items that the edge in front of this stage holds, unless the pipeline says otherwise.

        One, so that little is lost and nothing runs far ahead; a stage whose visits are cheaper than a turn of the
        scheduler has room for a burst, because with one item a turn the turns would cost more than the visits.
        """
        return 1

    def produces(self) -> Mapping[str, Fields | None]:
        """Names that later stages see, each with the fields of its value, or None where they are not known."""
        return {self.name: None}

    @property
    def children(self) -> int:
        """The most items that one entering item becomes further down the chain."""
        return 1

    @property
    def keeps(self) -> bool:
        """Whether an entering item is held here while what it became is further down the chain."""
        return False

    @property
    def forgets(self) -> bool:
        """Whether what goes on stands for several items, so that templates further down see nothing of each."""
        return False

    @property
    def thins(self) -> bool:
        """Whether items may be dropped or held here while others go by, so that fewer come out than went in."""
        return False

    @property
    def against_submit(self) -> str | None:
        """Why a run with this stage takes no submitted records; None if it does."""
        return None

    def multiplicity(self, of: Callable[[Stage], int], left: Callable[[Stage], int]) -> int:
        """The most items that one entering item can be alive as here, itself included. `of` tells it of a body, `left`
        what a finished member may leave behind in one."""
        return 1 + sum(
            body.copies * of(body.stage) + (body.members - body.copies) * left(body.stage)
            for body in self.bodies().values()
        )

    @property
    def leaves_behind(self) -> bool:
        """Whether an item may go on while members of its group, told to vanish, are still on their way out."""
        return False

    def resources(self) -> tuple[Resource[object], ...]:
        """What has to be open while a run uses this stage."""
        return ()

    def watched(self, watch: Callable[[Stage, object], object]) -> Stage:
        """This stage with each function of the user's as `watch` gives it: what a run in debug mode runs."""
        given = {option: watch(self, getattr(self, option)) for option in self.functions}
        return replace(self, **given) if given else self

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        """What is wrong with this stage where it stands, bodies not included."""
        return ()

    def stalls(self, standing: Standing) -> Iterable[Problem]:
        """Why a run could wait here for ever."""
        return ()

    def doubts(self, standing: Standing) -> Iterable[Problem]:
        """What is legal here and surely not meant."""
        return ()


class Standing(NamedTuple):
    """Where a stage stands: what decides whether the items that it waits for can come."""

    in_body: bool
    before: tuple[Stage, ...]  #: the stages upstream of it on the chain that it is part of
    max_in_flight: int
    ordered: bool
    most: int  #: items that can be there at once


@dataclass(frozen=True)
class Body:
    """An inner network of a composite, and what is special about it."""

    stage: Stage
    names: frozenset[str] = frozenset()  #: what its templates see beyond what the composite sees
    copies: int = 1  #: members that one entering item can have in it at once
    total: int | None = None  #: members that it can have in all, if that is more
    alone: bool = False  #: its templates see nothing of what the composite sees but `vars`
    role: Role = "branch"  #: what an item is to it, for pictures
    shared: frozenset[str] | None = None  #: outputs that other bodies may write too; None: what it writes is not seen

    @property
    def members(self) -> int:
        return self.copies if self.total is None else max(self.copies, self.total)


@dataclass(frozen=True)
class Chain(Stage):
    """Stages one after the other: what `|` makes."""

    name: str = field(default="", init=False)
    stages: tuple[Stage, ...] = ()

    @classmethod
    def of(cls, *stages: object) -> Chain:
        """Chain `stages`; chains among them are opened up, agents become stages."""
        flat: list[Stage] = []
        for stage in stages:
            stage = as_stage(stage)
            flat += stage.stages if isinstance(stage, Chain) else (stage,)
        return cls(tuple(flat))

    def parts(self) -> tuple[Stage, ...]:
        return tuple(part for stage in self.stages for part in stage.parts())

    async def run(self, inbox: Inbox, outbox: Outbox, scope: Scope) -> None:
        await scope.run_chain(self.parts(), inbox, outbox)

    def produces(self) -> Mapping[str, Fields | None]:
        return {name: fields for stage in self.stages for name, fields in stage.produces().items()}


def as_stage(thing: object) -> Stage:
    """Read what may stand beside `|`: a stage, or an agent, which is one."""
    if isinstance(thing, Stage):
        return thing
    from pipeline.core.agent import is_agent, stage_of_agent  # an agent's stage is a Stage: the import must come later

    if is_agent(thing):
        return stage_of_agent(thing)
    name = getattr(thing, "__name__", type(thing).__name__)
    raise DefinitionError(
        Problem(
            None,
            None,
            f"{name!r} is neither a stage nor an agent",
            _what_it_should_be(thing, name),
        )
    )


def _what_it_should_be(thing: object, name: str) -> str:
    if isinstance(thing, list | tuple):
        return "stages are joined with |, as in a | b"
    if callable(thing) and not isinstance(thing, type):
        return f"an agent has a name and process(prompt, state); a plain function goes into map({name})"
    return (
        "a stage is made by agent(…), map(…), parallel(…) and the like; an agent has a name and process(prompt, state)"
    )


def as_bodies(cases: Mapping[str, object]) -> tuple[tuple[str, Stage], ...]:
    """Read the labelled bodies of a composite, in their order."""
    return tuple((label, as_stage(body)) for label, body in cases.items())
