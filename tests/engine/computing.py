"""Functions that worker processes import: found by name, and light to load."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pipeline.core.errors import ItemError, Skip
from pipeline.core.state import ConversationState


class Odd(Exception):
    """Cannot be pickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")
        self.hidden = lambda: None


def double(value: int) -> int:
    return 2 * value


def is_even(value: int) -> bool:
    return value % 2 == 0


def where(value: object) -> int:
    return os.getpid()


def telling_of_interrupts(path: str) -> int:
    """A Ctrl-C interrupts this process as ever, and is told in a file before."""

    def interrupted(*_: object) -> NoReturn:
        Path(path).touch()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)
    return os.getpid()


def calculator(prompt: str, state: ConversationState) -> str:
    return f"{prompt} after {state.outputs['double']} elsewhere than {os.getppid()}"


class Elsewhere:
    """An agent with something of its own, which travels."""

    name = "elsewhere"

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def process(self, prompt: str, state: ConversationState) -> object:
        return {"product": int(prompt) * self.factor, "there": os.getpid() != state.outputs["here"]}


def misbehaves(value: str) -> object:
    """Do what `value` says."""
    match value:
        case "raise":
            raise KeyError("no such key")
        case "odd":
            raise Odd("this", "that")
        case "item error":
            raise ItemError("said on purpose", type="Purpose", retryable=True)
        case "skip":
            raise Skip
        case "sys.exit":
            sys.exit("leaving")
        case "os._exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stdout":
            os.write(1, b"this is where the answers go\n")
        case "generator":
            return (each for each in value)
        case _:
            pass
    print("what is printed goes nowhere")
    return value


def busy_until(path: str) -> str:
    """Compute without a pause until the file at `path` exists."""
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
    return path


def forever(value: Mapping[str, Any]) -> NoReturn:
    """Write down who computes, then never stop."""
    Path(value["tell"]).write_text(str(os.getpid()))
    while True:
        pass


def same(value: object) -> object:
    return value


def passes(value: Mapping[str, str]) -> Mapping[str, str]:
    """Tell that it has come and compute until the gate opens, if there is one."""
    if value:
        Path(value["tell"]).write_text(str(os.getpid()))
        busy_until(value["gate"])
    return value


def forever_or_not(value: str) -> str:
    while value == "forever":
        pass
    return value


def changes(value: dict[str, list[int]]) -> int:
    value["numbers"].append(1)
    return len(value["numbers"])
