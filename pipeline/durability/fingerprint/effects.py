"""What an option decides: what comes out of a run (`result`), or only how the run goes about it (`operational`).

Every option of every definition has its word here, by the class that declares it; a test asks for those of new ones.
Classes of the user's say it themselves, and an option of theirs that says nothing counts as `result`:

    retries: int = field(default=3, metadata={"operational": True})

A request is the same under any operational setting: what decides its bytes is `result`, and so is whatever decides
which items, members and answers there are, and which of them a replay computes again. What is only a matter of when,
how many at once, how often tried, what is told and who pays is operational, and so are times after which a visit or an
item fails; but not those of a join, which say what a partial value consists of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from pipeline.core.places import is_ours

Effect: TypeAlias = Literal["result", "operational"]


class Option(NamedTuple):
    """How an option stands in a fingerprint."""

    effect: Effect | None  #: None: it is a name, which stands in the key
    called: str  #: as people write it
    beside: bool = False  #: its own options stand beside it, not under it
    hidden: bool = False  #: its values are not shown
    users: bool = False  #: a class of the user's has it, so its name may tell that it is a secret


def _row(*, result: str = "", operational: str = "", told: str = "") -> Mapping[str, Option]:
    """Options by name; `schema>output` is called `output` by people, `parameters*` has its own options beside it, and
    the values of `headers!` are hidden."""
    words: tuple[tuple[Effect | None, str], ...] = (("result", result), ("operational", operational), (None, told))
    row: dict[str, Option] = {}
    for effect, options in words:
        for option in options.split():
            name, _, called = option.rstrip("*!").partition(">")
            row[name] = Option(effect, called or name, option.endswith("*"), option.endswith("!"))
    return MappingProxyType(row)


_JOINED: Final = "join timeout on_timeout on_error"

EFFECTS: Final[Mapping[str, Mapping[str, Option]]] = MappingProxyType(
    {
        "Pipeline": _row(
            result="stage>stages ordered on_error variables>vars",
            operational="max_in_flight buffer_size max_failures item_timeout watchdog stall_timeout budget debug",
        ),
        "Stage": _row(told="name"),
        "Chain": _row(result="stages"),
        "LeafStage": _row(result="on_error", operational="concurrency"),
        "AgentStage": _row(result="agent* prompt output_key pure", operational="cpu timeout"),
        "FunctionStage": _row(result="function pure", operational="blocking cpu timeout"),
        "TapStage": _row(operational="function buffer on_full blocking"),
        "FlatMapStage": _row(result="function", operational="max_children"),
        "ParallelStage": _row(result=f"branches reducers {_JOINED}"),
        "RouteStage": _row(result="by cases default on_error"),
        "ScatterStage": _row(
            result=f"split each gather max_children on_excess {_JOINED}", operational="max_open"
        ),
        "LoopStage": _row(result="body until max_rounds max_cost on_exhausted on_error"),
        "BatchStage": _row(result="body size weight key on_error", operational="within"),
        "PartitionStage": _row(result="body key on_error"),
        "MapReduceStage": _row(
            result="split each reduce initial max_children on_error", operational="max_open"
        ),
        "VoteStage": _row(result="branches samples key needed on_tie timeout on_timeout on_error"),
        "ModelAgent": _row(
            told="name",
            result="model system schema>output conversation parameters* tools max_hops on_truncated on_refused",
            operational="stream",
        ),
        "FunctionTool": _row(
            told="name", result="description function on_error max_result arguments", operational="timeout"
        ),
        "Parameters": _row(result="temperature max_output_tokens stop seed reasoning extra_body"),
        "Calling": _row(
            result="fallback parameters*",
            operational="requests_per_minute tokens_per_minute input_tokens_per_minute output_tokens_per_minute "
            "max_concurrency timeout attempts hedge cache price",
        ),
        "OpenAIModel": _row(
            result="provider model>name base_url headers! token_field schema_mode api finish_optional",
            operational="api_key_env api_key_optional organization apis stream_usage price_provider token_charge "
            "adapts",
        ),
        "SimulatedModel": _row(
            result="model>name seed tokens errors fail_when hang_when", operational="latency limits"
        ),
    }
)  # fmt: skip

#: stages by which items go unchanged and unhindered, so that a pipeline is the same with them and without
ASIDE: Final = frozenset({"TapStage"})


def is_known(kind: type) -> bool:
    """Whether the options of `kind` have their words here."""
    return any(is_ours(base.__module__) and base.__name__ in EFFECTS for base in kind.__mro__)


def is_aside(kind: type) -> bool:
    """Whether stages of `kind` change nothing for the items."""
    return any(is_ours(base.__module__) and base.__name__ in ASIDE for base in kind.__mro__)


def options_of(kind: type) -> Mapping[Field[Any], Option]:
    """How the options of a dataclass stand in a fingerprint; one that nobody has said anything of counts as
    `result`."""
    return {field: _known(kind, field.name) or _own(kind, field) for field in _fields(kind)}


def unclassed(kind: type) -> tuple[str, ...]:
    """The options of `kind` of which nobody has said what they decide."""
    given = _fields(kind)
    return tuple(each.name for each in given if _known(kind, each.name) is None and "operational" not in each.metadata)


def _own(kind: type, field: Field[Any]) -> Option:
    effect: Effect = "operational" if field.metadata.get("operational") else "result"
    return Option(effect, field.name, users=not is_ours(kind.__module__))


def _fields(kind: type) -> tuple[Field[Any], ...]:
    return fields(cast(Any, kind)) if is_dataclass(kind) else ()


def _known(kind: type, option: str) -> Option | None:
    for base in kind.__mro__:
        if is_ours(base.__module__) and option in (row := EFFECTS.get(base.__name__, {})):
            return row[option]
    return None
