"""Templates: what they render, what they read, and what they refuse."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from enum import Enum
from threading import Thread
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.core.errors import ItemError
from pipeline.core.names import Unknown, fields_of, unknown_names
from pipeline.core.template_limits import LIMIT
from pipeline.core.templates import BadTemplate, Expression, Template


class Plan(BaseModel):
    questions: list[str]
    items: int = 2


class Loud(str):
    def upper(self) -> str:
        raise AssertionError("a method of the application was called")


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int
    colour: Colour


def failure(source: str, **names: object) -> str:
    with pytest.raises(ItemError) as caught:
        Template(source).render(names)
    assert caught.value.type == "template"
    return caught.value.message


def mistake(source: str, kind: type[Template] | type[Expression] = Template) -> tuple[str, int, str | None]:
    with pytest.raises(BadTemplate) as caught:
        kind(source)
    return caught.value.message, caught.value.line, caught.value.hint


def test_a_template_puts_values_into_its_text() -> None:
    assert Template("Translate {{ prompt }} to {{ vars.to }}.\n").render(
        {"prompt": "hi", "vars": {"to": "French"}}
    ) == ("Translate hi to French.\n")


def test_text_without_braces_is_itself_to_the_last_character() -> None:
    assert Template("100% of $x\r\n\n").render({}) == "100% of $x\r\n\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (3, "3"),
        (True, "true"),
        (None, "null"),
        (["é", 1], '["é", 1]'),
        ({"a": [True]}, '{"a": [true]}'),
        (Plan(questions=["q"]), '{"questions": ["q"], "items": 2}'),
        (Point(1, Colour.RED), '{"x": 1, "colour": "red"}'),
        (("a", "b"), '["a", "b"]'),
        (frozenset({"b", "a"}), '["a", "b"]'),
        ([Loud("a"), 1.5, date(2024, 1, 2)], '["a", 1.5, "2024-01-02"]'),
        ({1: "a", None: "b"}, '{"1": "a", "None": "b"}'),
        (MappingProxyType({"a": None}), '{"a": null}'),
    ],
)
def test_data_reads_as_json_in_the_text(value: object, text: str) -> None:
    assert Template("{{ value }}").render({"value": value}) == text


def test_a_field_is_found_before_a_method_of_the_same_name() -> None:
    assert Template("{{ plan.items }}").render({"plan": Plan(questions=[])}) == "2"
    assert Template("{{ plan.items() | list }}").render({"plan": {"a": 1}}) == '[["a", 1]]'


def test_tojson_does_not_escape_for_html() -> None:
    assert Template("{{ a | tojson }}").render({"a": "<b> & 'c'"}) == "\"<b> & 'c'\""


def test_a_method_of_the_application_is_not_called() -> None:
    assert Template("{{ a.upper() }}").render({"a": Loud("x")}) == "X"


def test_data_is_never_compiled_as_a_template() -> None:
    assert Template("{{ prompt }}").render({"prompt": "{{ secret }}{% if %}"}) == "{{ secret }}{% if %}"


def test_an_undefined_name_fails_the_item_and_names_what_there_is() -> None:
    assert failure("{{ drfat }}", input={}, draft="x") == (
        "'drfat' is not defined; available here: input, draft (did you mean 'draft'?)"
    )
    assert failure("{{ zzz }}") == "'zzz' is not defined; available here: nothing"


def test_a_missing_field_fails_the_item_and_names_the_fields_there_are() -> None:
    assert failure("{{ plan.qestions }}", plan={"questions": 1, "note": 2}) == (
        "no field 'qestions' in an object with: questions, note (did you mean 'questions'?)"
    )
    assert failure("{{ draft.text }}", draft="x") == "text has no field 'text'"
    assert failure("{{ parts[3] }}", parts=[1]) == "a list has no element 3"


def test_a_name_may_be_missing_where_the_template_says_so() -> None:
    assert Template("{{ x | default('none') }}{% if y is defined %}!{% endif %}").render({}) == "none"


def test_a_template_does_not_reach_python() -> None:
    assert failure("{{ ''.__class__.__mro__ }}") == "access to attribute '__class__' of 'str' object is unsafe."
    assert failure("{{ plan.update({}) }}", plan={}) == "access to attribute 'update' of 'dict' object is unsafe."
    assert failure("{{ p.model_dump() }}", p=Plan(questions=[])).startswith("no field 'model_dump' in an object with")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * n }}",
        "{{ n * [1] }}",
        "{{ 2 ** n }}",
        "{{ '%' ~ n ~ 'd' ~ '' }}{{ ('%' ~ n ~ 'd') % 1 }}",
        "{{ '%*d' % (n, 1) }}",
        "{{ ('%' ~ n ~ 'd') | format(1) }}",
        "{{ 'x'.center(n) }}",
        "{{ 'x'.zfill(n) }}",
        "{{ 'x' | center(n) }}",
        "{{ 'x' | indent(n) }}",
        "{{ [1] | tojson(indent=n) }}",
        "{{ '{:>{w}}'.format(1, w=n) }}",
        "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
        "{{ range(n) | list }}",
        "{% for i in range(9999) %}{% for j in range(9999) %}some text{% endfor %}{% endfor %}",
        "{% set a = 'x' * 16000000 %}{{ a + a }}",
    ],
)
def test_a_number_from_data_cannot_make_a_template_build_something_enormous(source: str) -> None:
    assert failure(source, n=10**9)


def test_the_longest_text_is_rendered_and_one_character_more_is_not() -> None:
    assert len(Template("{{ 'x' * n }}").render({"n": LIMIT})) == LIMIT
    assert failure("{{ 'x' * n }}y", n=LIMIT) == f"the text is longer than {LIMIT} characters"


def test_ordinary_operators_and_paddings_work() -> None:
    source = "{{ 7 % 4 }} {{ '%s!' % a }} {{ 2 ** 10 }} {{ 'x' * 3 }} {{ 'x'.center(3) }}| {{ '{:>3}'.format(1) }}"
    assert Template(source).render({"a": "x"}) == "3 x! 1024 xxx  x |   1"


@pytest.mark.parametrize(
    ("source", "message", "line", "hint"),
    [
        ("a\n{{ b", "unexpected end of template, expected 'end of print statement'", 2, None),
        ("{{ a | uper }}", "No filter named 'uper'", 1, "did you mean 'upper'?"),
        ("{{ a is evn }}", "No test named 'evn'", 1, "did you mean 'even'?"),
        (
            "\n{% include 'x' %}",
            "a template stands alone: it cannot include, import or extend another one",
            2,
            None,
        ),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "nested too deeply", 1, None),
        ("{{ a | random }}", "No filter named 'random'", 1, None),
    ],
)
def test_a_mistake_is_found_when_the_template_is_made(source: str, message: str, line: int, hint: str | None) -> None:
    assert mistake(source) == (message, line, hint)


def test_a_template_tells_the_names_and_the_chains_that_it_reads() -> None:
    template = Template(
        "{{ plan.questions[0].x }} {{ plan['note'] }} {{ input.items() }} {% for q in zs %}{{ q.a }}{% endfor %}"
    )
    assert template.names == {"plan", "input", "zs"}
    assert template.paths == {("plan",), ("plan", "questions"), ("plan", "note"), ("input",), ("zs",)}
    assert Template("no names").names == frozenset()
    assert Template("no names").paths == frozenset()
    assert Template("{{ range(3) | list }}").names == frozenset()


def test_a_name_that_the_template_binds_itself_tells_no_chains() -> None:
    template = Template("{{ plan.a }}{% for plan in xs %}{{ plan.b }}{% endfor %}")
    assert template.names == {"plan", "xs"}
    assert template.paths == {("xs",)}


@pytest.mark.parametrize("kind", [Template, Expression])
def test_a_template_is_a_value(kind: type[Template] | type[Expression]) -> None:
    one = kind("{{ a }}")
    assert one == kind("{{ a }}")
    assert one != kind("{{ b }}")
    assert {one} == {kind("{{ a }}")}
    assert repr(one) == f"{kind.__name__}(source='{{{{ a }}}}')"
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.deepcopy(one) == one
    with pytest.raises(AttributeError):
        one.source = "x"  # type: ignore[misc]


def test_an_expression_gives_the_value_itself() -> None:
    plan = Plan(questions=["a", "b"])
    assert Expression("{{ plan.questions }}").evaluate({"plan": plan}) == ["a", "b"]
    assert Expression(" {{- score >= 0.9 -}}\n").evaluate({"score": 0.95}) is True
    assert Expression("{{ text }}").evaluate({"text": "[1, 2]"}) == "[1, 2]"
    assert Expression("{{ xs | map('upper') }}").evaluate({"xs": ["a"]}) == ["A"]
    assert Expression("{{ range(n) }}").evaluate({"n": 2}) == [0, 1]
    assert Expression("{{ '}}' }}").evaluate({}) == "}}"
    assert Expression("{{ none }}").evaluate({}) is None


@pytest.mark.parametrize("source", ["{{ a }}{{ b }}", "x {{ a }}", "a", "", "{% if a %}{{ a }}{% endif %}", "{# a #}"])
def test_an_expression_is_exactly_one(source: str) -> None:
    message = "this must be exactly one expression, written {{ … }}, with nothing around it"
    assert mistake(source, Expression) == (message, 1, None)


@pytest.mark.parametrize("source", ["{{ zzz }}", "{{ [zzz] }}", "{{ {'a': zzz} }}"])
def test_an_undefined_name_in_an_expression_fails_the_item_wherever_it_is(source: str) -> None:
    with pytest.raises(ItemError) as caught:
        Expression(source).evaluate({"a": 1})
    assert caught.value.message == "'zzz' is not defined; available here: a"


def test_threads_share_a_template() -> None:
    template = Template("{% for x in xs %}{{ x }},{% endfor %}")
    texts: list[str] = []
    threads = [Thread(target=lambda i=i: texts.append(template.render({"xs": [i] * 200}))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == [f"{i}," * 200 for i in range(8)]


def test_jinja_is_imported_with_the_first_template_that_needs_it() -> None:
    code = (
        "import sys; from pipeline.core.templates import Template; Template('plain');"
        "assert 'jinja2' not in sys.modules; Template('{{ a }}'); assert 'jinja2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.text(alphabet="{}%#ab |.()[]'-\n*+~=,", max_size=60))
def test_any_text_is_a_template_or_a_bad_one(text: str) -> None:
    for kind in (Template, Expression):
        try:
            made = kind(text)
        except BadTemplate as error:
            line, message = error.line, error.message
        else:
            line, message = 1, outcome(made)
        assert line >= 1
        assert message


def outcome(made: Template | Expression) -> str:
    try:
        made.render({"a": 1}) if isinstance(made, Template) else made.evaluate({"a": 1})
    except ItemError as error:
        return error.type
    return "a value"


def test_names_that_do_not_exist_are_told_with_the_nearest_and_with_what_there_is() -> None:
    available = {"input": None, "draft": frozenset[str](), "plan": {"questions": None, "meta": {"lang": None}}}
    assert unknown_names(Template("{{ draft }} {{ input.any.thing }} {{ plan.meta.lang }}"), available) == []
    assert unknown_names(Template("{{ drfat }} {{ q }}"), available) == [
        Unknown("uses 'drfat'; available here: input, draft, plan", "did you mean 'draft'?"),
        Unknown("uses 'q'; available here: input, draft, plan", None),
    ]
    assert unknown_names(Expression("{{ plan.question[0] }}"), available) == [
        Unknown("uses 'plan.question'; 'plan' has: questions, meta", "did you mean 'questions'?")
    ]
    assert unknown_names(Template("{{ plan.meta.lnag }} {{ draft.x.y }}"), available) == [
        Unknown("uses 'draft.x'; 'draft' has no declared fields", None),
        Unknown("uses 'plan.meta.lnag'; 'plan.meta' has: lang", "did you mean 'lang'?"),
    ]
    assert unknown_names(Template("{{ plan.b }}"), {"plan": frozenset({"a"})}) == [
        Unknown("uses 'plan.b'; 'plan' has: a", None)
    ]


def test_a_schema_tells_the_fields_of_its_value() -> None:
    inner = {"type": "object", "properties": {"b": {"type": "string"}}}
    assert fields_of({"type": "object", "properties": {"a": inner, "c": {}}}) == {"a": {"b": {}}, "c": None}
    assert fields_of({"type": "object", "properties": {"a": {}}, "additionalProperties": True}) is None
    assert fields_of({"type": "array", "items": {}}) is None
    assert fields_of({"type": "string"}) == {}
