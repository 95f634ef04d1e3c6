"""How a model is called, whoever answers: what every definition of a model says about limits, tries and money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

from pipeline.calls.parameters import Parameters
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.ports import OpenModel, Resource
from stages.models.checks import count, percentile, prices, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Calling:
    """Limits, tries and money of one model. Raises `DefinitionError` from `check`."""

    requests_per_minute: int | None = None  #: what the account may send; None: found out as answers come
    tokens_per_minute: int | None = None  #: input and output together, where the provider counts so
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    max_concurrency: int | None = None  #: attempts in flight over all stages of a run; None: found out as answers come
    timeout: float | None = 120.0  #: seconds of one attempt, from the sending of it to the last byte of the answer
    attempts: int = 4
    hedge: str | None = None  #: send a second attempt when the first is slower than this share of them, as p95
    fallback: tuple[Resource[OpenModel], ...] = ()  #: models that are asked when this one cannot answer, in turn
    cache: bool | str = False  #: keep answers on disk, at a path of its own or the user's usual place
    #: US dollars a million tokens: `input`, `output` and perhaps `cached_input`; None: those of the price list
    price: Mapping[str, float] | None = field(default=None, hash=False)
    parameters: Parameters = field(default_factory=Parameters)

    def check(self) -> None:
        """Refuse what cannot be, and bring the rest into its form."""
        rates = ("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
        for option in (*rates, "max_concurrency", "attempts"):
            if getattr(self, option) is not None:
                count(getattr(self, option), option)
        object.__setattr__(self, "hedge", percentile(self.hedge, "hedge"))
        object.__setattr__(self, "fallback", self._models(self.fallback))
        cache = cast("object", self.cache)
        if not isinstance(cache, bool | str) or (isinstance(cache, str) and not _is_path(cache)):
            hint = "give true or false, or the path of a file, as ./calls.sqlite"
            raise DefinitionError(Problem(None, "cache", f"is {cache!r}", hint))
        if self.timeout is not None:
            object.__setattr__(self, "timeout", seconds(self.timeout, "timeout"))
        if self.price is not None:
            object.__setattr__(self, "price", MappingProxyType(prices(self.price, "price")))

    def _models(self, given: object) -> tuple[Resource[OpenModel], ...]:
        models = cast("Sequence[object]", given) if isinstance(given, list | tuple) else (given,)
        for model in models:
            if not isinstance(model, Calling):
                hint = "give models that resolve has made, or provider/model to resolve"
                raise DefinitionError(Problem(None, "fallback", f"{model!r} is no model that can take over", hint))
        return cast("tuple[Resource[OpenModel], ...]", tuple(models))


def _is_path(text: str) -> bool:
    """Say whether `text` is meant as a path: a bare word would be `off` or `maybe`, and a file of that name."""
    return "/" in text or "\\" in text or "." in text.strip(".")
