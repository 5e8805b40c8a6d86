"""A leaf has one spelling: whatever deviates from it, in any byte, is not read."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import statement as statements
from app.domain.commitment import commit
from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import MalformedStatement
from app.domain.json import canonical
from app.domain.statement import KINDS, KINDS_WITH_REF, Kind, PartCommitment, hash_leaf, parse, sign
from tests.federation.world import NOW, Officer, seeded, uuid7

OFFICER = Officer("EE", seeded("EE/cp/1"))
ID = uuid7("a statement")
MAIN = PartCommitment("main", "application/json", commit(b"s" * 32, ID, "main", b"{}"))


def make(kind: Kind = "issue", **changes: object) -> statements.Statement:
    values: dict[str, object] = {
        "kid": "EE/cp/1",
        "log": "ee.verbale.example/log/1",
        "statement_id": ID,
        "kind": kind,
        "iat": NOW,
        "parts": [] if kind == "erase" else [MAIN],
        "ref": b"r" * 32 if kind in KINDS_WITH_REF else None,
    }
    return sign(OFFICER.signer, **(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_signed_is_read_again(kind: Kind) -> None:
    made = make(kind, exp=NOW + 60)
    read = parse(made.leaf)
    assert read == made
    assert (read.kind, read.id, read.iat, read.exp, read.kid) == (kind, ID, NOW, NOW + 60, "EE/cp/1")
    assert read.leaf_hash == hash_leaf(made.leaf)
    OFFICER.signer.public.verify(read.signature, read.signing_input)


def test_a_leaf_is_read_by_a_second_jose_library() -> None:
    from joserfc import jws
    from joserfc.jwk import OKPKey

    made = make()
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": OFFICER.signer.public.text()})
    registry = jws.JWSRegistry(algorithms=["Ed25519"], strict_check_header=False)
    read = jws.deserialize_compact(made.leaf, key, registry=registry)
    assert orjson.loads(read.payload)["id"] == ID


def test_no_other_spelling_of_a_leaf_is_read_as_the_same_statement() -> None:
    """One bit flipped anywhere: not read, or read as something else, which the signature then does not cover."""
    leaf = make().leaf
    for position in range(len(leaf)):
        for bit in range(8):
            changed = bytearray(leaf)
            changed[position] ^= 1 << bit
            try:
                read = parse(bytes(changed))
            except MalformedStatement:
                continue
            assert (read.signing_input, read.signature) != (make().signing_input, make().signature)


@given(st.binary(max_size=600))
def test_bytes_at_random_are_refused_with_a_reason(raw: bytes) -> None:
    with pytest.raises(MalformedStatement) as refused:
        parse(raw)
    assert str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=9,
)


@given(JSON)
def test_a_payload_of_any_shape_is_refused_and_never_crashes(value: object) -> None:
    good = orjson.loads(b64u_decode(make().leaf.split(b".")[1]))
    for name in (*good, "exp", "ref"):
        with_value = good | {name: value}
        payload = orjson.dumps(with_value, option=orjson.OPT_SORT_KEYS)
        head, _, signature = make().leaf.split(b".")
        try:
            read = parse(b".".join((head, b64u_encode(payload).encode(), signature)))
        except MalformedStatement:
            continue
        assert read.leaf.split(b".")[1] == b64u_encode(payload).encode()


@pytest.mark.parametrize("size", [0, 1, 199, 16_385, 70_000])
def test_a_leaf_has_200_to_16384_bytes(size: int) -> None:
    with pytest.raises(MalformedStatement, match="200 to 16384"):
        parse(b"." * size)


@pytest.mark.parametrize(
    "origin",
    ["", "ee.example", "EE.example/log/1", "ee.example/log/0", "ee.example/log/01", "https://ee.example/log/1",
     "ee.example/log/1/", "-ee.example/log/1", "ee.example/log/1234567", "ee.example:x/log/1", "ee.example/log/1\n"],
)  # fmt: skip
def test_an_origin_has_one_form(origin: str) -> None:
    assert not statements.is_origin(origin)
    with pytest.raises(MalformedStatement):
        make(log=origin)


@pytest.mark.parametrize(
    "kid", ["", "ee/cp/1", "EE/cp/0", "EE/cp/01", "EE/CP/1", "EST/cp/1", "EE/cp/1234567", "EE/cp/1\n"]
)
def test_a_key_id_has_one_form(kid: str) -> None:
    assert not statements.is_kid(kid)
    with pytest.raises(MalformedStatement):
        make(kid=kid)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ID.upper(),
        ID.replace("-", ""),
        ID[:14] + "4" + ID[15:],
        ID[:19] + "c" + ID[20:],
        ID + "\n",
        "{" + ID + "}",
    ],
)
def test_an_id_is_a_lower_case_uuid_of_version_7(bad: str) -> None:
    assert not statements.is_statement_id(bad)
    with pytest.raises(MalformedStatement):
        make(statement_id=bad)


@pytest.mark.parametrize("iat", [-1, 2**40 + 1, 2**53 - 1])
def test_a_time_is_between_1970_and_what_every_json_library_can_hold(iat: int) -> None:
    with pytest.raises(MalformedStatement):
        make(iat=iat)


def test_seventeen_parts_are_too_many_and_sixteen_are_not() -> None:
    parts = [MAIN] + [PartCommitment(f"p{n}", "text/plain", b"c" * 32) for n in range(15)]
    assert len(make(parts=parts).parts) == 16
    with pytest.raises(MalformedStatement):
        make(parts=[*parts, PartCommitment("p16", "text/plain", b"c" * 32)])


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [PartCommitment("scan", "application/pdf", b"c" * 32)],
        [PartCommitment("main", "text/plain", b"c" * 32)],
        [PartCommitment("scan", "application/pdf", b"c" * 32), MAIN],
        [MAIN, MAIN],
        [MAIN, PartCommitment("Scan", "application/pdf", b"c" * 32)],
        [MAIN, PartCommitment("scan", "Application/PDF", b"c" * 32)],
        [MAIN, PartCommitment("scan", "application/pdf", b"c" * 31)],
        [MAIN, PartCommitment("../x", "application/pdf", b"c" * 32)],
    ],
)
def test_parts_begin_with_the_main_part_and_are_named_once(parts: list[PartCommitment]) -> None:
    with pytest.raises(MalformedStatement):
        make(parts=parts)


def test_a_statement_holds_no_personal_data_in_its_representation() -> None:
    """Statements end up in logs of a process: nothing of a body, a salt or a key may."""
    text = repr(statements.Part(b"salt", b"A. Person")) + repr(make())
    assert "Person" not in text
    assert "salt" not in text.replace("Part", "")


def test_the_signed_payload_is_canonical_json() -> None:
    payload = b64u_decode(make().leaf.split(b".")[1])
    assert canonical(orjson.loads(payload)) == payload
