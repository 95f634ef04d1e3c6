"""A record that goes into the journal comes back as the same one, with its place in the whole input."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ItemError
from pipeline.core.inputs import input_of_fields, input_of_text
from pipeline.core.record import Input
from pipeline.durability.disk.packing import pack, unpack

ids = st.text(min_size=1, max_size=5)
fields = st.dictionaries(st.text(max_size=3), st.one_of(st.text(max_size=5), st.integers(), st.none()), max_size=3)
conversation = st.just([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
records = st.one_of(
    st.builds(lambda text, id: input_of_text(text, id=id), st.text(max_size=5), ids),
    st.builds(lambda values, id: input_of_fields(values, id=id), fields, ids),
    st.builds(lambda messages, id: input_of_fields({"messages": messages}, id=id), conversation, ids),
)


@given(record=records, position=st.one_of(st.none(), st.integers(0, 2**40)))
def test_a_record_comes_back_as_it_was(record: Input, position: int | None) -> None:
    record = record._replace(position=position)
    assert record.id is not None
    assert unpack(pack(record), record.id) == record


@given(text=st.text(max_size=5), position=st.one_of(st.none(), st.integers(0, 2**40)))
def test_a_record_that_could_not_be_read_comes_back_with_why(text: str, position: int | None) -> None:
    broken = Input(text, "id", defect=ItemError("f, line 1: broken", type="InvalidInput"), position=position)
    found = unpack(pack(broken), "id")
    assert found.defect is not None
    assert (found.defect.message, found.defect.type) == ("f, line 1: broken", "InvalidInput")
    assert found._replace(defect=None) == broken._replace(defect=None)


def test_a_text_is_packed_as_little_more_than_itself() -> None:
    assert pack(input_of_text("hello", id="x")) == b'{"text":"hello"}'
    assert pack(input_of_text("hello", id="x")._replace(position=7)) == b'{"text":"hello","position":7}'
