"""What a client signs with `app.statements` is what a node accepts."""

import time
from itertools import pairwise

import pytest

from app.domain.encoding import b64u_decode
from app.domain.errors import InvalidNotice, KindMismatch, Malformed, MalformedStatement, ReferenceMismatch
from app.domain.keys import Ed25519Signer
from app.domain.notices import validate_main
from app.domain.statement import is_statement_id, parse
from app.statements import (
    Attachment,
    acknowledgement,
    amendment,
    forejudge,
    sign_notice,
    uuid7,
    withdrawal,
)
from tests import examples

ORIGIN = "ee.example/log/1"
SIGNER = Ed25519Signer.generate()
NOTICE = {
    "id": examples.NOTICE_ID,
    "leaf_hash": examples.LEAF_HASH,
    "origin": ORIGIN,
    "document": examples.denied_end_user(),
}


def test_ids_are_uuids_of_version_7_in_the_order_of_time() -> None:
    made = [uuid7(ms) for ms in range(1_790_000_000_000, 1_790_000_000_100)]
    assert all(is_statement_id(one) for one in made)
    assert all(a < b for a, b in pairwise(made))
    assert int(uuid7().replace("-", "")[:12], 16) == pytest.approx(time.time() * 1000, abs=60_000)


def test_ids_and_salts_are_fresh_every_time() -> None:
    first, second = (sign_notice(examples.best_practice(), SIGNER, "EE/cp/1", ORIGIN) for _ in range(2))
    assert parse(first["statement"].encode()).id != parse(second["statement"].encode()).id
    assert first["parts"]["main"]["salt"] != second["parts"]["main"]["salt"]


def test_a_signed_notice_holds_in_every_part() -> None:
    listed = [{"part": "annex", "name": "a.txt", "media_type": "text/plain", "size": 2}]
    wire = sign_notice(
        examples.best_practice(attachments=listed),
        SIGNER,
        "EE/cp/1",
        ORIGIN,
        exp=1_900_000_000,
        attachments=[Attachment("annex", "text/plain", b"hi")],
        at=1_790_000_000,
    )
    statement = parse(wire["statement"].encode())
    SIGNER.public.verify(statement.signature, statement.signing_input)
    assert (statement.kid, statement.log, statement.iat, statement.exp) == (
        "EE/cp/1",
        ORIGIN,
        1_790_000_000,
        1_900_000_000,
    )
    assert [p.name for p in statement.parts] == ["main", "annex"]
    assert b64u_decode(wire["parts"]["annex"]["content"]) == b"hi"
    forejudge(wire)


@pytest.mark.parametrize(
    ("kind", "main"),
    [
        (
            "amend",
            amendment(NOTICE, examples.denied_end_user(title="New"), reason="correction", explanation="Why"),
        ),
        ("withdraw", withdrawal(NOTICE, kind="revoked", reason="Over.", effective_on="2026-09-30")),
        (
            "ack",
            acknowledgement(
                NOTICE,
                issuer="EE",
                state="received",
                contact={"role": "point_of_contact", "office": "Office", "email": "a@ee.example"},
                note="Thanks.",
            ),
        ),
        ("erase", None),
    ],
)
def test_what_follows_a_notice_is_valid_and_refers_to_it(kind: str, main: dict[str, object] | None) -> None:
    wire = sign_notice(main, SIGNER, "EE/cp/1", ORIGIN, kind=kind, ref=examples.LEAF_HASH)  # type: ignore[arg-type]
    forejudge(wire)
    assert parse(wire["statement"].encode()).ref == bytes(32)
    if main is not None:
        assert validate_main(main).kind == kind


def test_a_long_title_is_cut_and_still_valid() -> None:
    long = NOTICE | {"document": examples.denied_end_user(title="x" * 500)}
    validate_main(withdrawal(long, kind="revoked", reason="Over.", effective_on="2026-09-30"))


def test_what_cannot_follow_is_refused_before_it_is_signed() -> None:
    with pytest.raises(Malformed, match="lacks issuer, tlp"):
        amendment(NOTICE, {"type": "denied_end_user"}, reason="correction")
    with pytest.raises(Malformed, match="keeps type and issuer"):
        amendment(NOTICE, examples.best_practice(), reason="correction")
    with pytest.raises(Malformed, match="shows no document"):
        withdrawal(NOTICE | {"document": None}, kind="revoked", reason="x", effective_on="2026-09-30")
    with pytest.raises(MalformedStatement, match="ref is required"):
        sign_notice(examples.withdrawal(), SIGNER, "EE/cp/1", ORIGIN, kind="withdraw")
    with pytest.raises(MalformedStatement, match="same name"):
        sign_notice(
            examples.best_practice(),
            SIGNER,
            "EE/cp/1",
            ORIGIN,
            attachments=[Attachment("main", "application/json", b"{}")],
        )


def test_what_a_node_would_refuse_is_foreseen() -> None:
    with pytest.raises(InvalidNotice):
        forejudge(sign_notice(examples.denied_end_user(title=""), SIGNER, "EE/cp/1", ORIGIN))
    with pytest.raises(KindMismatch):
        forejudge(sign_notice(examples.withdrawal(), SIGNER, "EE/cp/1", ORIGIN))
    with pytest.raises(ReferenceMismatch):
        forejudge(
            sign_notice(examples.withdrawal(), SIGNER, "EE/cp/1", ORIGIN, kind="withdraw", ref=b"\x01" * 32)
        )
