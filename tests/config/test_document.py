"""Documents: YAML without its surprises, JSON and TOML beside it, limits, and text that survives being written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.document import read_document, write_yaml
from pipeline.config.nodes import Mark, Scalar, Table, data, scalars
from pipeline.config.problems import ConfigError


def value(text: str | bytes, name: str = "a.yaml") -> object:
    return data(read_document(text, name)[0])


def problem(text: str | bytes, name: str = "a.yaml") -> tuple[str, str, int, int]:
    with pytest.raises(ConfigError) as caught:
        read_document(text, name)
    (only,) = caught.value.problems
    return only.code, only.message, only.mark.line, only.mark.column


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0o17", 15),
        ("0xff", 255),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("9" * 500, "9" * 500),
        ("'12'", "12"),
        ('"true"', "true"),
    ],
)
def test_words_mean_what_yaml_1_2_says(text: str, meant: object) -> None:
    assert value(f"a: {text}\n") == {"a": meant}
    assert type(value(f"a: {text}\n")["a"]) is type(meant)  # type: ignore[index]


def test_a_key_is_its_text() -> None:
    assert value("no: 1\n1: 2\ntrue: 3\n") == {"no": 1, "1": 2, "true": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ("E106", "the key 'a' is already used in line 1", 3, 1)),
        ("a: &x [1]\n", ("E106", "anchors are not supported: leave out '&x'", 1, 4)),
        ("a: *x\n", ("E106", "aliases are not supported: write the value out", 1, 4)),
        (
            "a: !!str 1\n",
            ("E106", "tags are not supported: leave out 'tag:yaml.org,2002:str', and put text in quotes", 1, 4),
        ),
        ("a: !x 1\n", ("E106", "tags are not supported: leave out '!x', and put text in quotes", 1, 4)),
        ("a: 1\n---\nb: 1\n", ("E106", "a second document: a pipeline file holds one", 2, 1)),
        ("[a]: 1\n", ("E101", "a key must be text", 1, 1)),
        ("", ("E100", "the file is empty; a pipeline starts with 'version: 1'", 0, 0)),
        ("# only words\n", ("E100", "the file is empty; a pipeline starts with 'version: 1'", 0, 0)),
        ("a: [1, 2\nb: }\n", ("E100", "not YAML: did not find expected ',' or ']'", 2, 2)),
        ("a:\n\t- b\n", ("E100", "not YAML: tabs are not allowed in YAML indentation: write spaces", 2, 1)),
        ("a:\n  \tb: 1\n  c: 2\n", ("E100", "not YAML: tabs are not allowed in YAML indentation: write spaces", 2, 3)),
        ("a: @\n", ("E100", "not YAML: found character that cannot start any token", 1, 4)),
        (
            "a: 1\nb: \x1b[0m\n",
            ("E100", "the character U+001B is not allowed: write it as an escape in double quotes", 2, 4),
        ),
        (
            "\x00",
            ("E100", "the character U+0000 is not allowed: write it as an escape in double quotes", 1, 1),
        ),
        (b"a: \xff\n", ("E100", "not UTF-8: byte 0xff in line 1; save the file as UTF-8", 0, 0)),
        ("a: \ud800", ("E100", "not valid Unicode: half a surrogate pair at character 3", 0, 0)),
        ("[" * 51 + "]" * 51, ("E107", "nested more than 50 deep", 1, 51)),
        ("[" * 100_000, ("E107", "nested more than 50 deep", 1, 51)),
        ("[" + "1," * 10_000 + "]", ("E107", "more than 10000 values", 1, 20_000)),
        ("a" * (1024 * 1024 + 1), ("E107", "the file has 1048577 bytes; the most is 1048576 (1 MiB)", 0, 0)),
    ],
)
def test_what_surprises_in_yaml_is_refused_with_its_place(
    text: str | bytes, expected: tuple[str, str, int, int]
) -> None:
    assert problem(text) == expected


def test_limits_are_not_reached_one_below_them() -> None:
    assert value("[" * 50 + "]" * 50)
    assert value("[" + "1," * 9_999 + "]") == [1] * 9_999


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    bomb = "a: &a [x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)},*{chr(97 + i)}]\n" for i in range(20)
    )
    assert problem(bomb)[1] == "anchors are not supported: leave out '&a'"


def test_every_value_knows_where_it_stands() -> None:
    root, _ = read_document("a: 1\nb:\n  - é: 'x y'\n", "a.yaml")
    assert [scalar.mark for scalar in scalars(root)] == [Mark(1, 4, 1, 5), Mark(3, 8, 3, 13)]
    assert isinstance(root, Table)
    assert [entry.mark for entry in root.entries] == [Mark(1, 1, 1, 2), Mark(2, 1, 2, 2)]


def test_a_byte_order_mark_is_no_text() -> None:
    assert value(b"\xef\xbb\xbfa: 1") == {"a": 1}
    assert value("\ufeffa: 1") == {"a": 1}


def test_json_is_read_with_places() -> None:
    text = '{\n  "a": [1, -2.5, "x\\u00e9"],\n  "b": null, "c": true\n}'
    root, _ = read_document(text, "a.json")
    assert data(root) == json.loads(text)
    assert [(s.mark.line, s.mark.column) for s in scalars(root)] == [(2, 9), (2, 12), (2, 18), (3, 8), (3, 19)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("E100", "not JSON: expected a value", 1, 1)),
        ("{a: 1}", ("E100", 'not JSON: expected text in "quotes"', 1, 2)),
        ('{"a" 1}', ("E100", "not JSON: expected ':' after a key", 1, 6)),
        ("[1 2]", ("E100", "not JSON: expected ',' or ']'", 1, 4)),
        ("[1,]", ("E100", "not JSON: expected a value", 1, 4)),
        ("[01]", ("E100", "not JSON: expected a value", 1, 2)),
        ("[1e999]", ("E100", "not JSON: a number beyond every limit", 1, 7)),
        ("[NaN]", ("E100", "not JSON: expected a value", 1, 2)),
        ("1 2", ("E100", "not JSON: one value, and something follows it", 1, 3)),
        ('"a', ("E100", "not JSON: Unterminated string starting at", 1, 1)),
        ('["\\ud800"]', ("E100", "not JSON: text with half a surrogate pair", 1, 10)),
        ('{"a": 1,\n "a": 2}', ("E106", "the key 'a' is already used in line 1", 2, 2)),
        ("[" * 51 + "]" * 51, ("E107", "nested more than 50 deep", 1, 51)),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(text: str, expected: tuple[str, str, int, int]) -> None:
    assert problem(text, "a.json") == expected


def test_toml_is_read_without_places() -> None:
    root, _ = read_document('version = 1\n[models.fake]\nuse = "sim/x"\nnice = true\n', "a.toml")
    assert data(root) == {"version": 1, "models": {"fake": {"use": "sim/x", "nice": True}}}
    assert next(scalars(root)).mark == Mark()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = \n", ("E100", "not TOML: Invalid value", 1, 5)),
        ("a = -inf\n", ("E101", "-inf has no use here: write a finite number", 0, 0)),
        ("a = 1979-05-27\n", ("E101", "dates and times have no use here: put '1979-05-27' in quotes", 0, 0)),
        ("a = " + "[" * 60 + "]" * 60, ("E107", "nested more than 50 deep", 0, 0)),
    ],
)
def test_what_is_not_toml_is_refused(text: str, expected: tuple[str, str, int, int]) -> None:
    assert problem(text, "a.toml") == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_reads_as_the_standard_reader_reads_it(thing: object) -> None:
    assert value(json.dumps(thing, indent=1), "a.json") == thing


PRINTABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(
    PRINTABLE
    | st.sampled_from(["yes", "0o17", "1e3", "~", "null", "true", "a: b", "- x", "x\n\n", " x\n y", "{{ a }}"])
)
def test_text_that_is_written_as_yaml_is_read_back(text: str) -> None:
    assert value(write_yaml({"a": [text]})) == {"a": [text]}


@given(st.text(max_size=60) | st.text(alphabet="ab:-[]{}\"'\n #&*!|>%?, \t01", max_size=60) | st.binary(max_size=30))
def test_any_text_is_a_document_or_a_problem(text: str | bytes) -> None:
    for name in ("a.yaml", "a.json", "a.toml"):
        try:
            node, _ = read_document(text, name)
        except ConfigError as error:
            shown = str(error)
        else:
            shown = str(type(node))
            assert all(isinstance(scalar, Scalar) for scalar in scalars(node))
        shown.encode()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prompts.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n'),
        ("prompts.jsonl", '{"prompt": "a"}\n'),
        ("prompts.txt", "say hello\n"),
        ("prompts.txt", "- one\n- two\n"),
        ("prompts.csv", "id,prompt\n1,x\n"),
        ("prompts", "Say: @it\n'\n"),
    ],
)
def test_an_input_in_the_place_of_the_pipeline_is_told_of(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_document(text, name)
    (problem,) = caught.value.problems
    assert (problem.code, problem.hint) == ("E100", "the pipeline comes first, then the input")


def test_a_pipeline_may_have_any_name() -> None:
    assert isinstance(read_document("version: 1\nstages: []\n", "review")[0], Table)
    with pytest.raises(ConfigError) as caught:
        read_document("a: [\n", "review.yaml")
    assert caught.value.problems[0].hint is None


def test_a_tab_before_the_first_word_is_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        read_document("a:\n\t- b\tc\n", "a.yaml")
    assert str(caught.value).splitlines()[2:4] == ["2 | →- b c", "  | ^"]
