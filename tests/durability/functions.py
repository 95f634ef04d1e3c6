"""Functions of a user's, for pipelines in files and in code."""

from __future__ import annotations

from pipeline.core.members import Members, Verdict


def shout(value: object) -> str:
    """Say it loudly."""
    return str(value).upper()


def whisper(value: object) -> str:
    return str(value).lower()


def through_another(value: object) -> str:
    return shout(value) + "!"


def is_long(value: object) -> bool:
    return len(str(value)) > 10


def add(total: int, value: int) -> int:
    return total + value


def two_of_three(members: Members) -> Verdict | None:
    return "ok" if len(members.values) > 1 else None


def population(city: str) -> int:
    """The number of people who live in a city."""
    return len(city)


def area(city: str) -> int:
    """Square kilometres of a city."""
    return len(city) * 2
