"""Stage kinds and a provider of models as small as they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from pipeline.config.description import Description, load_text
from pipeline.config.problems import ConfigError
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.words import Field, Word


@dataclass(frozen=True)
class Stage:
    kind: str
    name: str
    values: Mapping[str, object]

    def __or__(self, other: object) -> Chain:
        return Chain((self, *parts(other)))


@dataclass(frozen=True)
class Chain:
    stages: tuple[object, ...]

    def __or__(self, other: object) -> Chain:
        return Chain((*self.stages, *parts(other)))


def parts(stage: object) -> tuple[object, ...]:
    return stage.stages if isinstance(stage, Chain) else (stage,)


def word(kind: str, **fields: Field) -> Word:
    def build(name: str, **values: object) -> object:
        if values.get("concurrency") == 0:
            raise DefinitionError(Problem(name, "concurrency", "must be at least 1", "leave it out for the default"))
        if name == "cursed":
            raise ValueError("cannot be built")
        return Stage(kind, name, values)

    return Word(kind, fields, build)


WORDS = {
    each.kind: each
    for each in (
        word(
            "agent",
            model=Field("model", required=True),
            fallback=Field("models"),
            prompt=Field("template"),
            system=Field("text"),
            output=Field("schema"),
            concurrency=Field("count"),
            timeout=Field("duration"),
            temperature=Field("number"),
            stop=Field("texts"),
            strict=Field("flag"),
            extra_body=Field("mapping"),
            on_error=Field("choice", choices=("dead_letter", "skip", "fail")),
        ),
        word(
            "scatter",
            split=Field("decision", required=True),
            each=Field("body", required=True),
            gather=Field("body"),
            join=Field("join"),
            max_children=Field("count", default=100),
        ),
        word(
            "parallel",
            branches=Field("bodies", required=True),
            join=Field("join"),
            reducers=Field("reducers", choices=("list", "sum")),
        ),
        word("route", by=Field("by", required=True), cases=Field("bodies", required=True), default=Field("body")),
        word("map", call=Field("call", required=True), settings=Field("any")),
        word("limits", share=Field("share"), rate=Field("rate"), money=Field("money"), either=Field("count_or_share")),
    )
}


class Models:
    """Knows `sim/…` alone."""

    def options(self, use: str) -> Mapping[str, Field]:
        if not use.startswith("sim/"):
            raise DefinitionError(Problem(None, "use", f"unknown provider in {use!r}", "did you mean 'sim'?"))
        return {
            "latency": Field("duration"),
            "seed": Field("count"),
            "base_url": Field("text"),
            "api_key_env": Field("text"),
            "headers": Field("mapping"),
            "token": Field("text", secret=True),
        }

    def resolve(self, use: str, **values: object) -> object:
        self.options(use)
        if use == "sim/":
            raise DefinitionError(Problem(None, "use", "names no model"))
        if values.get("seed") == 13:
            raise DefinitionError(Problem(None, "seed", "is unlucky"))
        return (use, values)


SIM = ("sim/default", {})
HEAD = "version: 1\nmodels: {fake: {use: sim/default}}\n"


def read(
    text: str,
    *,
    name: str = "review.yaml",
    overrides: Sequence[str] = (),
    variables: Mapping[str, object] | None = None,
    allow_import: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Description:
    return load_text(
        text,
        name,
        overrides=overrides,
        variables=variables,
        allow_import=allow_import,
        environment=environment or {},
        words=WORDS,
        models=Models(),
    )


def refused(text: str, **options: object) -> str:
    """The whole text of the error."""
    with pytest.raises(ConfigError) as caught:
        read(text, **options)  # type: ignore[arg-type]
    return str(caught.value)


def messages(text: str, **options: object) -> list[str]:
    """Each problem as `line:column code message (hint)`."""
    with pytest.raises(ConfigError) as caught:
        read(text, **options)  # type: ignore[arg-type]
    return [
        f"{p.mark.origin or f'{p.mark.line}:{p.mark.column}'} {p.code} {p.message}" + (f" ({p.hint})" if p.hint else "")
        for p in caught.value.problems
    ]
