"""Server-sent events: what is an event, however it is cut into parts."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.calls.errors import CallError
from pipeline.calls.sse import Decoder, SentEvent


def decoded(stream: bytes, *cuts: int, limit: int = 1 << 20) -> tuple[list[SentEvent], str | None]:
    decoder, found = Decoder(limit), list[SentEvent]()
    for start, end in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        found += decoder.feed(stream[start:end])
    return found, decoder.end()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_three_ways(end: str) -> None:
    stream = f"event: a{end}data: 1{end}data: 2{end}{end}data: 3{end}{end}".encode()
    whole = ([SentEvent("a", "1\n2"), SentEvent("", "3")], None)
    assert decoded(stream) == whole
    assert all(decoded(stream, cut) == whole for cut in range(len(stream)))


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b": ping\n\ndata: x\n\n", ["x"]),
        (b"data:x\n\n", ["x"]),
        (b"data:  x\n\n", [" x"]),
        (b"data\n\n", [""]),
        (b"id: 5\nretry: 9\nother: 1\ndata: x\n\n", ["x"]),
        (b"event: lonely\n\ndata: x\n\n", ["x"]),
        (b"\xef\xbb\xbfdata: x\n\n", ["x"]),
        ("data: a\u2028b\u0085c\x0bd\n\n".encode(), ["a\u2028b\u0085c\x0bd"]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_what_an_event_is(stream: bytes, data: list[str]) -> None:
    found, rest = decoded(stream)
    assert ([event.data for event in found], rest) == (data, None)


@pytest.mark.parametrize(
    ("stream", "rest"),
    [(b"data: ha", "ha"), (b"data: ha\n", "ha"), (b"dat", ""), (b"data: 1\n\ndata: 2\ndata: 3", "2\n3")],
)
def test_half_an_event_is_none_and_is_told_at_the_end(stream: bytes, rest: str) -> None:
    found, left = decoded(stream)
    assert (left, [event.data for event in found]) == (rest, ["1"] if b"1" in stream else [])


@pytest.mark.parametrize("stream", [b"data: \xff\n\n", b"data: \xe2\x82\n\n", b"data: \xed\xa0\x80\n\n"])
def test_what_is_no_utf_8_breaks_the_stream(stream: bytes) -> None:
    with pytest.raises(CallError) as caught:
        decoded(stream)
    assert (caught.value.type, caught.value.fault) == ("broken_stream", "ambiguous")


def test_a_stream_is_no_longer_than_its_limit() -> None:
    assert decoded(b"data: x\n\n", limit=9) == ([SentEvent("", "x")], None)
    with pytest.raises(CallError) as caught:
        decoded(b"data: x\n\n", limit=8)
    assert (caught.value.type, caught.value.fault) == ("too_big", "fail")
    assert caught.value.message == "the answer is longer than 8 bytes"


@pytest.mark.parametrize(
    "part", [b"ab", b"data:\n", b"data: a\ndata: \xc3\xa9\n" * 20_000], ids=["line", "lines", "big"]
)
def test_what_is_kept_of_a_stream_takes_no_more_memory_than_its_bytes(part: bytes) -> None:
    decoder, size = Decoder(1 << 20), 400_000
    tracemalloc.start()
    try:
        for _ in range(size // len(part)):
            assert list(decoder.feed(bytes(bytearray(part)))) == []  # a new object each time, as from a socket
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1.5 * size
    assert most < 10 * size


pieces = st.sampled_from(
    [b"data: ", b"event: ", b"x", b":", b"\r", b"\n", "é\u2028".encode(), b"\xff", b"\xef\xbb\xbf"]
)


@given(st.lists(pieces, max_size=12).map(b"".join), st.data())
def test_where_a_stream_is_cut_changes_nothing(stream: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(stream)))
    whole = cut_up = None
    with suppress(CallError):
        whole = decoded(stream)
    with suppress(CallError):
        cut_up = decoded(stream, cut)
    assert cut_up == whole
