"""Schemas in their three forms, what fits them, and the one repair."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from pipeline.calls.call import CallIdentity, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.parameters import Parameters
from pipeline.calls.schema import Schema, SchemaError
from pipeline.calls.structured import structured
from pipeline.core.errors import DefinitionError
from pipeline.core.state import Message
from pipeline.core.usage import Usage
from tests.calls.visits import FakeVisit


class Plan(BaseModel):
    questions: list[str]
    note: str = ""


def wrong(schema: Schema, text: str) -> str:
    with pytest.raises(SchemaError) as caught:
        schema.validate(text)
    return str(caught.value)


def test_the_short_form_is_a_closed_object_with_every_key_required() -> None:
    schema = Schema.of({"score": "number", "tags": ["string"], "label": {"enum": ["a", "b"]}, "at": {"x": "integer"}})
    assert schema.json_schema == {
        "type": "object",
        "properties": {
            "score": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "label": {"enum": ["a", "b"]},
            "at": {
                "type": "object",
                "properties": {"x": {"type": "integer"}},
                "required": ["x"],
                "additionalProperties": False,
            },
        },
        "required": ["score", "tags", "label", "at"],
        "additionalProperties": False,
    }
    assert schema.fields == ("score", "tags", "label", "at")


@pytest.mark.parametrize(
    "written",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}},
        {"enum": ["a", "b"]},
        {"type": "integer", "minimum": 1},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
    ],
)
def test_json_schema_is_taken_as_it_is(written: dict[str, object]) -> None:
    assert Schema.of(written).json_schema == written


def test_an_object_with_a_key_called_type_can_be_written_short() -> None:
    assert Schema.of({"type": "string", "title": "string"}).fields == ("type", "title")


def test_fields_are_unknown_where_others_are_allowed() -> None:
    assert Schema.of({"type": "object", "properties": {"a": {"type": "string"}}}).fields is None
    assert Schema.of({"type": "array"}).fields is None
    assert Schema.of(Plan).fields == ("questions", "note")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ({"a": "nubmer"}, "pipeline, output.a: 'nubmer' is not a type (did you mean number?)"),
        ({"a": {"b": ["string", "number"]}}, "output.a.b: ['string', 'number'] does not describe a value"),
        ({}, "{} does not describe a value"),
        ({"type": "object", "properties": {"a": {"type": "strin"}}}, "not a JSON Schema: 'strin'"),
        ({"$ref": "https://example.com/a.json"}, "$ref 'https://example.com/a.json' points outside the schema"),
        (5, "5 is not a schema"),
    ],
)
def test_what_is_no_schema_is_refused_with_what_would_be_right(written: object, text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Schema.of(written)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_an_answer_that_fits_is_plain_data_or_an_instance() -> None:
    assert Schema.of({"n": "integer"}).validate('{"n": 3}') == {"n": 3}
    assert Schema.of(Plan).validate('{"questions": ["a"]}') == Plan(questions=["a"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```json\n{}\n```", "it is not valid JSON: Expecting value at line 1, column 1"),
        ('{"n": 1} thanks', "it is not valid JSON: Extra data at line 1, column 10"),
        ('{"n": NaN}', "it is not valid JSON: NaN is not JSON"),
        ('{"n": 1, "n": 2}', "it is not valid JSON: the key 'n' comes twice"),
        ('{"n": "\\ud800"}', "it is not valid JSON: an escape stands for half a character"),
        ("[" * 100_000, "it is not valid JSON: it is nested too deeply"),
        ('{"n": ' + "9" * 5000 + "}", "it is not valid JSON: Exceeds the limit"),
        ('{"n": "x"}', "n: 'x' is not of type 'integer'"),
        ('{"n": 1, "m": 2}', "the answer: Additional properties are not allowed ('m' was unexpected)"),
        ("{}", "the answer: 'n' is a required property"),
    ],
)
def test_what_does_not_fit_is_said_in_words_for_the_model(text: str, said: str) -> None:
    assert wrong(Schema.of({"n": "integer"}), text).startswith(said)


def test_a_pydantic_class_says_where_and_what() -> None:
    assert wrong(Schema.of(Plan), '{"questions": [1]}') == "questions.0: Input should be a valid string"


def test_equal_schemas_are_equal_values() -> None:
    assert Schema.of({"a": "string"}) == Schema.of({"a": "string"})
    assert len({Schema.of({"a": "string"}), Schema.of({"a": "string"}), Schema.of({"a": "number"})}) == 2
    assert Schema.of(Schema.of(Plan)) == Schema.of(Plan)


def replies(*given: Reply) -> tuple[list[Request], object]:
    left, seen = list(given), list[Request]()

    async def call(request: Request) -> Reply:
        seen.append(request)
        return left.pop(0)

    return seen, call


def reply(text: str, finish: str = "stop", attempts: int = 1) -> Reply:
    return Reply(text, Usage(requests=1), None, finish_reason=finish, attempts=attempts)


def asked(schema: Schema | None) -> Request:
    visit = FakeVisit()
    return Request(
        (Message("user", "count"),), Parameters(), schema, visit, CallIdentity("1", ("ask",), visit.next_ordinal())
    )


NUMBER = Schema.of({"n": "integer"})


async def test_without_a_schema_the_text_is_left_alone() -> None:
    _, call = replies(reply("not json"))
    assert (await structured(call)(asked(None))).parsed is None  # type: ignore[arg-type]


async def test_a_misfit_goes_back_once_with_what_is_wrong_as_a_call_of_its_own() -> None:
    seen, call = replies(reply('{"n": "x"}', attempts=2), reply('{"n": 2}'))
    answer = await structured(call)(asked(NUMBER))  # type: ignore[arg-type]
    assert (answer.parsed, answer.attempts) == ({"n": 2}, 3)
    assert [each.identity.ordinal for each in seen] == [0, 1]
    assert seen[1].messages == (
        Message("user", "count"),
        Message("assistant", '{"n": "x"}'),
        Message(
            "user",
            "That answer cannot be used: n: 'x' is not of type 'integer'\n"
            "Answer again with one JSON value that fits, and nothing else.",
        ),
    )


async def test_a_second_misfit_fails_and_keeps_the_answer() -> None:
    seen, call = replies(reply("{}"), reply("[]"))
    with pytest.raises(CallError) as caught:
        await structured(call)(asked(NUMBER))  # type: ignore[arg-type]
    assert (len(seen), caught.value.type, caught.value.answer, caught.value.attempts) == (2, "schema", "[]", 2)
    assert str(caught.value).startswith("the answer does not fit its schema: the answer: [] is not of type 'object'")


@pytest.mark.parametrize(("finish", "kind"), [("length", "truncated"), ("refusal", "refused")])
async def test_an_answer_that_is_not_whole_is_not_repaired(finish: str, kind: str) -> None:
    seen, call = replies(reply('{"n":', finish))
    with pytest.raises(CallError) as caught:
        await structured(call)(asked(NUMBER))  # type: ignore[arg-type]
    assert (len(seen), caught.value.type) == (1, kind)


@pytest.mark.parametrize("written", [{"oneOf": "string"}, {"anyOf": ["string"]}, {"allOf": "number", "a": "string"}])
def test_a_field_may_be_named_like_a_keyword(written: dict[str, object]) -> None:
    assert Schema.of(written).fields == tuple(written)


def test_a_field_named_type_that_is_a_list_is_the_short_form_of_one() -> None:
    schema = Schema.of({"type": [{"enum": ["a", "b"]}]})
    assert schema.validate('{"type": ["a"]}') == {"type": ["a"]}
    assert Schema.of({"type": ["string", "null"]}).validate("null") is None
