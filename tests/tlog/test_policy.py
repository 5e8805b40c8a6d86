"""C2SP tlog-policy: what the specification allows is read, what it forbids is refused with the line."""

import pytest

from app.tlog.cosignature import CosignerKey
from app.tlog.note import VerifierKey
from app.tlog.policy import MalformedPolicy, Policy
from tests.federation.world import seeded

LOG = VerifierKey("log.example/1", seeded("a log").public)
KEYS = [CosignerKey(f"w{n}.example", seeded(f"witness {n}").public) for n in range(6)]
X1, X2, X3, Y1, Y2, Y3 = (key.encode() for key in KEYS)
EXAMPLE = f"""
log {LOG.encode()}

witness X1 {X1}
\twitness  X2\t{X2} https://x2.example/
witness X3 {X3}
group X-witnesses 2 X1 X2 X3
  # a comment
witness Y1 {Y1}
witness Y2 {Y2}
witness Y3 {Y3}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def test_the_specifications_example_is_read_and_means_what_it_says() -> None:
    policy = Policy.parse(EXAMPLE.encode())
    assert [log.key for log in policy.logs] == [LOG]
    assert policy.witnesses[1].url == "https://x2.example/"
    x1, x2, x3, y1, _, y3 = KEYS
    assert policy.met_by([x1, x3, y1])
    assert policy.met_by([x2, x3, y3])
    assert not policy.met_by([x1, x2, x3])
    assert not policy.met_by([x1, y1, y3])
    assert not policy.met_by([])


def test_what_is_written_is_read_again() -> None:
    policy = Policy.parse(EXAMPLE.encode())
    assert Policy.parse(policy.encode()) == policy
    assert Policy.parse(b"quorum none\n").met_by([])


def test_names_are_opaque_octets() -> None:
    policy = Policy.parse(f"witness \u212a {X1}\nwitness K {X2}\ngroup g all \u212a K\nquorum g\n".encode())
    assert [witness.name for witness in policy.witnesses] == ["\u212a".encode(), b"K"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line feed"),
        ("quorum none", "line feed"),
        ("log\nquorum none\n", "Line 1"),
        (f"log {LOG.encode()}\n", "no quorum line"),
        ("quorum none\nquorum none\n", "Line 2 of the policy: there is a quorum line already"),
        ("quorum a\n", "no line before it defines"),
        (f"quorum a\nwitness a {X1}\n", "no line before it defines"),
        (f"witness none {X1}\nquorum none\n", "taken"),
        (f"witness a {X1}\nwitness a {X2}\nquorum a\n", "taken"),
        (f"witness a {X1}\nwitness b {X1}\nquorum a\n", "stands in the policy already"),
        (f"log {LOG.encode()}\nlog {LOG.encode()}\nquorum none\n", "stands in the policy already"),
        (f"log {X1}\nquorum none\n", "Line 1"),
        (f"witness a {LOG.encode()}\nquorum a\n", "Line 1"),
        (f"witness a {X1}\ngroup g 2 a\nquorum g\n", "cannot ask for 2"),
        (f"witness a {X1}\ngroup g 0 a\nquorum g\n", "cannot ask for 0"),
        (f"witness a {X1}\ngroup g -1 a\nquorum g\n", "whole number"),
        (f"witness a {X1}\ngroup g most a\nquorum g\n", "whole number"),
        (f"witness a {X1}\ngroup g all\nquorum g\n", "none of"),
        (f"witness a {X1}\ngroup g all a a\nquorum g\n", "at most one group"),
        (f"witness a {X1}\ngroup g all a\ngroup h all a\nquorum g\n", "at most one group"),
        ("group g all g\nquorum g\n", "no line before it defines"),
        (f"witness a {X1}\ngroup g all none\nquorum g\n", "no line before it defines"),
        ("quorum none\r\n", "control characters"),
        ("quorum\u00a0none\n", "none of"),
        ("policy none\n", "none of"),
        ("#\n" * 5000 + "quorum none\n", "at most"),
    ],
)
def test_what_the_specification_forbids_is_refused_with_the_line(text: str, why: str) -> None:
    with pytest.raises(MalformedPolicy, match=why):
        Policy.parse(text.encode())


@pytest.mark.parametrize("bit", [1, 0x80])
def test_no_flipped_byte_brings_in_a_key_that_was_not_there(bit: int) -> None:
    """A policy is not signed; but each key carries an id of itself and its name, so no flip makes another key of it."""
    said: list[str] = []
    raw = f"log {LOG.encode()} https://l.example\nwitness X1 {X1}\nwitness X2 {X2}\ngroup g 2 X1 X2\nquorum g\n".encode()
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= bit
        try:
            policy = Policy.parse(bytes(flipped))
        except MalformedPolicy as refusal:
            said.append(str(refusal))
            continue
        assert {witness.key for witness in policy.witnesses} <= set(KEYS[:2])
        assert {log.key for log in policy.logs} <= {LOG}
        assert not policy.met_by([])
    assert all(said)
