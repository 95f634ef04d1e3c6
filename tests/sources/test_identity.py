"""Ids are brought along or made of the content, and repeats are told apart as far back as the horizon."""

from __future__ import annotations

from hashlib import blake2b

from pipeline.core import identity
from pipeline.core.identity import HORIZON
from stages.sources.identity import Identity


def test_the_id_of_a_content_is_its_hash_and_repeats_are_numbered() -> None:
    ids = Identity()
    name = blake2b(b'"hello"', digest_size=8).hexdigest()
    assert [ids.of_content("hello") for _ in range(3)] == [(name, name), (f"{name}#2", name), (f"{name}#3", name)]
    assert len(name) == 16


def test_the_order_of_fields_does_not_change_an_id() -> None:
    assert Identity().of_content({"a": 1, "b": 2}) == Identity().of_content({"b": 2, "a": 1})


def test_id_goes_before_custom_id_and_both_before_the_content() -> None:
    ids = Identity()
    assert ids.of_fields({"id": "x", "custom_id": "y"}, "f, line 1") == (("x", "x"), None)
    assert ids.of_fields({"id": None, "custom_id": 7}, "f, line 2") == (("7", "7"), None)
    assert ids.of_fields({"id": 1.5}, "f, line 3") == (Identity().of_content({"id": 1.5}), None)
    assert ids.of_fields({"id": ""}, "f, line 4") == (Identity().of_content({"id": ""}), None)


def test_an_id_field_that_is_named_must_hold_an_id() -> None:
    ids = Identity("key")
    assert ids.of_fields({"key": 0, "id": "no"}, "f, line 1") == (("0", "0"), None)
    for fields, text in (
        ({"id": "x"}, "the id field 'key' is missing"),
        ({"key": True}, "the id field 'key' holds no text and no integer"),
        ({"key": ""}, "the id field 'key' holds no text and no integer"),
    ):
        found, defect = ids.of_fields(fields, "f, line 2")
        assert found == Identity().of_content(fields)
        assert defect is not None
        assert defect.message == text


def test_an_id_that_comes_twice_is_a_defect_of_the_later_record_which_stays_tellable() -> None:
    ids = Identity()
    ids.of_fields({"id": "a"}, "f, line 1")
    for number in (2, 3):
        found, defect = ids.of_fields({"id": "a"}, f"f, line {number}")
        assert found == (f"a#{number}", "a")
        assert defect is not None
        assert defect.message == "id 'a' was given before, by f, line 1"
    found, defect = ids.of_fields({"id": "a#2"}, "f, line 4")
    assert found == ("a#2#2", "a#2")
    assert defect is not None
    assert defect.message == "id 'a#2' was given before, by f, line 2"


def test_the_horizon_holds_the_contents_used_last() -> None:
    ids = Identity()
    first = ids.of_content(0).id
    for value in range(1, HORIZON):
        ids.of_content(value)
    assert ids.of_content(0).id == f"{first}#2"
    for value in range(HORIZON, 2 * HORIZON - 1):
        ids.of_content(value)
    assert ids.of_content(0).id == f"{first}#3"
    for value in range(2 * HORIZON, 3 * HORIZON):
        ids.of_content(value)
    assert ids.of_content(0).id == first
    assert identity.HORIZON == 32_768
