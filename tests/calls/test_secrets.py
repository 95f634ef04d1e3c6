"""A secret that a server quotes stands nowhere in what is shown of its answer, in one piece or in many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.calls.secrets import Secrets, Veil

KEY = "sk-canary-0123456789abcdef"


def test_a_secret_in_a_text_is_replaced_and_the_rest_stays_as_it_is() -> None:
    assert Secrets((KEY,)).clean(f"two  blanks, {KEY}\nand {KEY}.") == "two  blanks, [key]\nand [key]."
    assert Secrets().clean(f"{KEY}") == KEY


def test_the_longest_secret_is_replaced_first() -> None:
    secrets = Secrets.of("abcd-token", {"Authorization": "Bearer abcd-token"})
    assert secrets.values == ("Bearer abcd-token", "abcd-token")
    assert secrets.clean("with Bearer abcd-token or abcd-token") == "with [key] or [key]"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("Authorization", True),
        ("X-Api-Key", True),
        ("cookie", True),
        ("X-Auth-Token", True),
        ("x-portkey-virtual-key", True),
        ("x-portkey-provider", False),
        ("X-Team", False),
        ("User-Agent", False),
    ],
)
def test_headers_are_secret_by_their_name(name: str, secret: bool) -> None:
    assert Secrets.of(None, {name: "research"}).values == (("research",) if secret else ())


def test_what_is_too_short_to_be_told_from_an_ordinary_word_is_left() -> None:
    assert Secrets.of("abc", {}).clean("abc") == "abc"


def test_a_servers_words_are_one_line_without_the_secret_however_it_is_masked() -> None:
    said = f"bad key: {KEY[:8]}****\n{KEY} (ends in …{KEY[-4:]})"
    assert Secrets((KEY,)).line(said) == "bad key: [key] [key] (ends in …[key])"


def test_secrets_do_not_show_themselves() -> None:
    assert KEY not in repr(Secrets((KEY,)))


@given(st.lists(st.sampled_from([KEY, KEY[:5], KEY[3:], "s", "sk-", "the gate is open ", "[key]"])), st.data())
def test_a_text_in_pieces_is_the_same_as_the_whole_text_cleaned(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    veil = Veil(Secrets((KEY,)))
    shown = [veil.through(text[start:end]) for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join([*shown, veil.rest()]) == Secrets((KEY,)).clean(text)


def test_a_piece_that_begins_like_a_secret_is_held_until_it_is_known_to_be_none() -> None:
    veil = Veil(Secrets((KEY,)))
    assert [veil.through("ask sk-can"), veil.through("teen"), veil.rest()] == ["ask ", "sk-canteen", ""]
    assert [veil.through("end s"), veil.rest(), veil.rest()] == ["end ", "s", ""]
