"""Strict JSON in, canonical JSON out: two parsers never read two things."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import MalformedJson, NonCanonicalEncoding
from app.domain.json import MAX_DEPTH, canonical, parse_strict

# Above 2^53 a double that is whole is written as an integer, which then has no canonical form: no notice has such numbers.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"{}{}",
        b"{} x",
        b"nul",
        b"NaN",
        b"[NaN]",
        b"Infinity",
        b"-Infinity",
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":{"a":1,"b":2,"a":1}}',
        b'[{"a":1},{"b":1,"b":1}]',
        b"[1,]",
        b'{"a":1,}',
        b"{'a':1}",
        b"[01]",
        b"[1.]",
        b"[+1]",
        b"// c\n{}",
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\x41"',
        b'"\x00"',
        b'"\n"',
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"1" * 41,
        b"[" * 33 + b"]" * 33,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b"[" * 1_000_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
    ids=lambda raw: raw[:24].decode("latin-1").encode("unicode_escape").decode(),
)
def test_what_parsers_could_read_in_two_ways_is_not_read(raw: bytes) -> None:
    with pytest.raises(MalformedJson) as refused:
        parse_strict(raw)
    assert str(refused.value)


def test_thirty_two_levels_are_read() -> None:
    assert parse_strict(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is not None


def test_white_space_and_escapes_are_read() -> None:
    assert parse_strict(b' {"b" : [1, 2.5, "\\u00e9\\ud83d\\ude00"],\n"a":null} ') == {
        "a": None,
        "b": [1, 2.5, "é😀"],
    }


@given(VALUES)
def test_what_is_canonical_is_read_as_it_was(value: Any) -> None:
    raw = canonical(value)
    assert parse_strict(raw) == value
    assert canonical(parse_strict(raw)) == raw


@given(VALUES)
def test_the_strict_parser_agrees_with_pythons_own(value: Any) -> None:
    raw = json.dumps(value, indent=1).encode()
    assert parse_strict(raw) == json.loads(raw)


def test_the_example_of_rfc_8785() -> None:
    raw = (
        b'{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
        b'"string":"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/","literals":[null,true,false]}'
    )
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(parse_strict(raw)).decode() == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, {1: "a"}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(MalformedJson):
        canonical(value)


@pytest.mark.parametrize(
    "text", ["A", "AA==", "AB", "AAB", "A A", "AA\n", "+/+/", "AA.", "é", "AAA=", "\x00AAA"]
)
def test_base64url_has_one_spelling(text: str) -> None:
    with pytest.raises(NonCanonicalEncoding):
        b64u_decode(text)


@given(st.binary(max_size=70))
def test_base64url_round_trips(data: bytes) -> None:
    assert b64u_decode(b64u_encode(data)) == data
    assert b64u_decode(b64u_encode(data).encode()) == data
