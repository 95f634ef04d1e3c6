"""What can stand in a file beyond what the file itself defines: kinds of stages and providers of models.

Both are entry points, so that the engine never imports what is put into it, and third parties register theirs the same
way: `penstock.stages` names `Word` objects by kind, `penstock.models` names `ModelProvider` objects by provider, and
the one called `presets` serves every provider without an entry of its own. A module is imported when its word is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, cast

from pipeline.core.words import Field, Word


class ModelProvider(Protocol):
    """Turns `provider/model` and options into the definition of a model."""

    def options(self, use: str) -> Mapping[str, Field]:
        """The options that `use` takes. Raises `ValueError` or `DefinitionError` when it is not known."""
        ...

    def resolve(self, use: str, **values: object) -> object:
        """The definition. Raises `ValueError` or `DefinitionError`, whose problems name the option."""
        ...


class InstalledWords(Mapping[str, Word]):
    """The kinds of stages that are installed, each loaded when it is asked for."""

    def __init__(self) -> None:
        self._points = {point.name: point for point in entry_points(group="penstock.stages")}

    def __getitem__(self, kind: str) -> Word:
        return cast(Word, self._points[kind].load())

    def __contains__(self, kind: object) -> bool:
        return kind in self._points

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


class InstalledModels:
    """The providers that are installed, as one."""

    def __init__(self) -> None:
        self._points = {point.name: point for point in entry_points(group="penstock.models")}

    def options(self, use: str) -> Mapping[str, Field]:
        return self._for(use).options(use)

    def resolve(self, use: str, **values: object) -> object:
        return self._for(use).resolve(use, **values)

    def _for(self, use: str) -> ModelProvider:
        point: EntryPoint | None = self._points.get(use.partition("/")[0], self._points.get("presets"))
        if point is None:
            raise ValueError("no provider of models is installed (entry points of the group penstock.models)")
        return cast(ModelProvider, point.load())
