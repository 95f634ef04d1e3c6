"""What a function is known by: the same for what does the same, another one for what may not."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline import Pipeline
from pipeline.durability.fingerprint import Fingerprint, fingerprint
from pipeline.durability.fingerprint.changes import differences
from pipeline.durability.fingerprint.code import Sources, helpers, name_of, version_of
from stages import map
from tests.durability import functions

Load = Callable[[str], ModuleType]

PLAIN = """
def work(value, most=3):
    "What it does."
    # why
    total = value  +  1
    return total * most
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Modules of one name, whatever is in them."""
    numbers = count()

    def load(text: str) -> ModuleType:
        file = tmp_path / f"{next(numbers)}.py"
        file.write_text(text)
        spec = spec_from_file_location("work_of_the_users", file)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def of(function: Any, name: str = "s") -> Fingerprint:
    return fingerprint(Pipeline(map(function, name=name)))


def changed(one: Any, other: Any) -> list[str]:
    return [change.option for change in differences(of(one), of(other))]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    # why\n", ""),
        ("value  +  1", "(value + 1)  # one more"),
        ('    "What it does."\n', ""),
        ('"What it does."', '"Something else."'),
        ("\ndef work", "\nimport os\n\n\ndef other():\n    return 1\n\n\ndef work"),
    ],
)
def test_comments_docstrings_and_positions_change_nothing(load: Load, old: str, new: str) -> None:
    assert old in PLAIN
    assert changed(load(PLAIN).work, load(PLAIN.replace(old, new)).work) == []


@pytest.mark.parametrize(("old", "new"), [("+  1", "+  2"), ("total * most", "total / most"), ("return", "yield")])
def test_other_code_is_noticed(load: Load, old: str, new: str) -> None:
    assert changed(load(PLAIN).work, load(PLAIN.replace(old, new)).work) == ["function.source"]


def test_another_default_is_noticed_by_its_value_too(load: Load) -> None:
    other = PLAIN.replace("most=3", "most=4")
    assert changed(load(PLAIN).work, load(other).work) == ["function.source", "function.defaults.most"]


def test_a_default_that_is_a_name_is_noticed_by_its_value(load: Load) -> None:
    one, other = (f"MOST = {most}\n" + PLAIN.replace("most=3", "most=MOST") for most in (3, 4))
    assert changed(load(one).work, load(other).work) == ["function.defaults.most"]


def test_constants_of_the_module_that_a_function_uses_are_noticed_but_not_keys(load: Load) -> None:
    text = """
PREFIX, API_KEY, SEEN, seen = "old", "sk-0123456789abcdef0123", object(), 0

def work(value):
    return PREFIX + str(value) + API_KEY + str(SEEN) + str(seen)
"""
    assert changed(load(text).work, load(text).work) == []
    assert changed(load(text).work, load(text.replace("sk-01", "sk-02").replace("object(), 0", "1.5, 1")).work) == [
        "function.constants.SEEN"
    ]
    assert changed(load(text).work, load(text.replace("old", "new")).work) == ["function.constants.PREFIX"]


def test_lambdas_in_one_line_are_told_apart(load: Load) -> None:
    text = "A, B, C = (lambda v: v + 1), (lambda v: v + 2), (lambda v: lambda w: w)\n"
    one = load(text)
    other = load("\n\n" + text.replace("v + 2", "v + 3"))
    assert changed(one.A, other.A) == []
    assert changed(one.C, other.C) == []
    assert changed(one.B, other.B) == ["function.source"]
    assert changed(one.A, one.B) == ["function.source"]


def test_a_function_in_a_function_is_found_by_its_place(load: Load) -> None:
    text = """
def one():
    def work(value):
        return value + 1
    return work

def two():
    def work(value):
        return value + 2
    return work
"""
    module = load(text)
    assert changed(module.one(), load("\n" + text).one()) == []
    assert changed(module.one(), module.two()) == ["function", "function.source"]


def test_what_a_decorator_makes_is_known_by_the_decorator_and_by_the_function(load: Load) -> None:
    text = """
import functools

def loud(function):
    @functools.wraps(function)
    def wrapper(value):
        return function(value) + "!"
    return wrapper

@loud
def work(value):
    return str(value)
"""
    assert changed(load(text).work, load(text).work) == []
    assert changed(load(text).work, load(text.replace('"!"', '"?"')).work) == ["function.source"]
    inner = ["function.closure.function.source"]
    assert changed(load(text).work, load(text.replace("str(value)", "repr(value)")).work) == inner


def test_what_a_cache_wraps_is_looked_into(load: Load) -> None:
    text = "import functools\n\n@functools.cache\ndef work(value):\n    return value + 1\n"
    assert changed(load(text).work, load(text.replace("+ 1", "+ 2")).work) == ["function.wraps.source"]


def test_a_partial_is_known_by_its_function_and_its_arguments(load: Load) -> None:
    module = load("def work(a, b, *, c=0):\n    return a + b + c\n")
    one = functools.partial(module.work, 1, c=2)
    assert changed(one, functools.partial(module.work, 1, c=2)) == []
    assert changed(one, functools.partial(module.work, 2, c=2)) == ["function.arguments"]
    assert changed(one, functools.partial(module.work, 1, c=3)) == ["function.keywords.c"]


def test_an_object_that_can_be_called_is_known_by_its_class_and_fields(load: Load) -> None:
    text = """
from dataclasses import dataclass

class Base:
    def __call__(self, value):
        return self.told(value)

@dataclass
class Work(Base):
    most: int = 1

    def told(self, value):
        return value + self.most
"""
    module = load(text)
    assert changed(module.Work(), load(text.replace("import dataclass", "import  dataclass")).Work()) == []
    assert changed(module.Work(), module.Work(most=2)) == ["function.most"]
    assert changed(module.Work(), load(text.replace("value + self", "value - self")).Work()) == ["function.source"]


def test_a_pydantic_model_that_can_be_called_is_known_by_its_class_and_fields(load: Load) -> None:
    text = """
from pydantic import BaseModel

class Work(BaseModel):
    most: int = 1
    held: object = None

    def __call__(self, value):
        return value + self.most
"""
    work = load(text).Work
    assert changed(work(), work()) == []
    assert changed(work(), work(most=2)) == ["function.most"]
    assert changed(work(), load(text.replace("value + self", "value - self")).Work()) == ["function.source"]
    (said,) = of(work(held=object())).opaque
    assert said.startswith("stage 's', function: what a work_of_the_users:Work holds cannot be seen")


def test_a_version_stands_for_the_source(load: Load) -> None:
    def versioned(text: str, version: object, name: str = "version") -> Callable[..., object]:
        work: Callable[..., object] = load(text).work
        setattr(work, name, version)
        return work

    other = PLAIN.replace("+  1", "+  2")
    assert changed(versioned(PLAIN, "1"), versioned(other, "1")) == []
    assert changed(versioned(PLAIN, "1"), versioned(PLAIN, "2")) == ["function.version"]
    assert changed(versioned(PLAIN, 1, "__version__"), versioned(PLAIN, 2, "__version__")) == ["function.version"]
    assert of(versioned(PLAIN, "1")).opaque == ()


def test_code_without_a_source_is_named_as_not_seen() -> None:
    names: dict[str, Any] = {"__name__": "made"}
    exec("def work(value):\n    return value", names)
    said = "stage 's', function: the source of made:work cannot be read"
    assert of(names["work"]).opaque == (f"{said}; a change of it is not noticed; give it a `version`",)


def test_helpers_are_named_as_not_looked_into() -> None:
    assert helpers(functions.through_another) == ("shout",)
    assert helpers(functions.shout) == ()
    (said,) = of(functions.through_another).opaque
    assert said.startswith(
        "stage 's', function: tests.durability.functions:through_another uses shout, not looked into"
    )


def test_what_belongs_to_python_and_to_the_engine_is_known_by_its_name_alone() -> None:
    for function, name in ((str.strip, "str.strip"), (len, "len"), (operator.neg, "_operator:neg"), (str, "str")):
        found = of(function)
        assert found.result["stages.s.function"] == name
        assert "stages.s.function.source" not in found.result
        assert found.opaque == ()
    assert name_of(Pipeline) == "Pipeline"


def test_a_function_that_reaches_itself_has_an_end() -> None:
    def countdown(value: int) -> int:
        return countdown(value - 1) if value else 0

    found = of(countdown).result["stages.s.function.closure.countdown"]
    assert found == name_of(countdown)


def test_a_version_is_a_text_or_a_number_and_nothing_else() -> None:
    class Odd:
        version = True

        @property
        def __version__(self) -> str:
            raise RuntimeError("not now")

    assert version_of(Odd()) is None
    assert version_of(functions.shout) is None


def test_files_that_cannot_be_read_have_no_hash(load: Load, tmp_path: Path) -> None:
    work = load(PLAIN).work
    broken = load(PLAIN).work
    (tmp_path / "1.py").write_text("def work(:\n")
    assert Sources().hash_of(work) is not None
    assert Sources().hash_of(broken) is None
