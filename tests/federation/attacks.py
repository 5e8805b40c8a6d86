"""Bad notices, one builder each, named for what it tries. Both doors are attacked with all of them.

A builder gets a `Stage`: an officer whose log holds some good notices already. It returns what would be posted, or what a
malicious State would put into its own log: a leaf and the parts served with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.json import canonical
from app.domain.keys import Es256Signer
from app.domain.roster import RosterKey
from app.domain.statement import Part
from tests import examples
from tests.federation.world import DAY, NOW, Officer, Signed, World, origin_of, seeded

Leaf = tuple[bytes, dict[str, Part]]

ES256 = Es256Signer(derive_private_key(1_234_567, SECP256R1()))
YEAR_2250 = 8_835_955_200


def list_keys(world: World, state: str) -> None:
    """Give a State, beside its good key, one of each kind that must not count."""
    for kid, times in {
        "cp/2": {"active_from": NOW + 30 * DAY},
        "cp/3": {"active_from": NOW - 9 * DAY, "active_to": NOW},
        "cp/4": {"active_from": NOW - 9 * DAY, "revoked_at_index": 1},
    }.items():
        key = seeded(f"{state}/{kid}").public
        world.add_key(state, RosterKey(f"{state}/{kid}", "notices", key, **times))
    world.add_key(state, RosterKey(f"{state}/cp/5", "notices", ES256.public, NOW - DAY))


@dataclass
class Stage:
    """An officer, and notices that stand in its log before any attack."""

    officer: Officer
    other: Officer
    standing: list[Signed] = field(default_factory=list)
    theirs: Signed = field(init=False)
    """A notice of the other State, in that State's log."""

    def __post_init__(self) -> None:
        state = self.officer.state
        sign = self.officer.sign
        self.good = sign(self.main())
        self.withdrawn = sign(self.main(title="To be withdrawn"))
        self.withdrawal = sign(
            examples.withdrawal(self.withdrawn.id, self.withdrawn.ref, issuer=state),
            "withdraw",
            ref=self.withdrawn.hash,
        )
        self.amended = sign(self.main(title="To be amended"))
        self.amendment = sign(
            examples.amendment(self.amended.id, self.amended.ref, issuer=state),
            "amend",
            ref=self.amended.hash,
        )
        self.erased = sign(self.main(title="To be erased"))
        self.erasure = sign(None, "erase", ref=self.erased.hash)
        self.standing = [
            self.good,
            self.withdrawn,
            self.withdrawal,
            self.amended,
            self.amendment,
            self.erased,
            self.erasure,
        ]
        self.theirs = self.other.sign(examples.denied_end_user(issuer=self.other.state))

    def main(self, **overrides: Any) -> dict[str, Any]:
        return examples.denied_end_user(**{"issuer": self.officer.state} | overrides)

    def sign(self, main: Any = None, *args: Any, **kwargs: Any) -> Leaf:
        signed = self.officer.sign(self.main() if main is None else main, *args, **kwargs)
        return signed.leaf, signed.parts


@dataclass(frozen=True)
class Attack:
    """How each door must take it.

    Attributes:
        code, status: the local door's problem.
        mirrored: where a mirror shows it: `statement` or `body` (flagged with the same code), `wanted` (whoever served the
            body is at fault, so it is asked for again), `fine` (for a mirror it is no fault).
        mirrored_code: where it differs from `code`.
    """

    name: str
    build: Callable[[Stage], Leaf]
    code: str
    status: int
    mirrored: str
    mirrored_code: str


ATTACKS: dict[str, Attack] = {}


def attack(
    code: str, status: int = 422, *, mirrored: str = "statement", mirrored_code: str | None = None
) -> Callable[[Callable[[Stage], Leaf]], Callable[[Stage], Leaf]]:
    def register(build: Callable[[Stage], Leaf]) -> Callable[[Stage], Leaf]:
        name = build.__name__
        ATTACKS[name] = Attack(name, build, code, status, mirrored, mirrored_code or code)
        return build

    return register


# ── the leaf's form ───────────────────────────────────────────────────────────────────────────────────────────────


def leaf_of(
    stage: Stage,
    protected: bytes | None = None,
    payload: bytes | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Leaf:
    """A leaf whose signature holds over a header or payload that nobody may write."""
    signed = stage.officer.sign(stage.main())
    head, body, _ = signed.leaf.split(b".")
    if change is not None:
        members = orjson.loads(b64u_decode(body))
        change(members)
        payload = orjson.dumps(members, option=orjson.OPT_SORT_KEYS)
    head = head if protected is None else b64u_encode(protected).encode()
    body = body if payload is None else b64u_encode(payload).encode()
    signature = stage.officer.signer.sign(head + b"." + body)
    return b".".join((head, body, b64u_encode(signature).encode())), signed.parts


def payload_of(leaf: bytes) -> bytes:
    return b64u_decode(leaf.split(b".")[1])


@attack("malformed-statement")
def unsigned(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    return leaf[: leaf.rindex(b".") + 1], parts


@attack("malformed-statement")
def algorithm_none(stage: Stage) -> Leaf:
    return leaf_of(stage, f'{{"alg":"none","kid":"{stage.officer.state}/cp/1","typ":"notice+jws"}}'.encode())


@attack("malformed-statement")
def key_brought_along_in_the_header(stage: Stage) -> Leaf:
    kid = f"{stage.officer.state}/cp/1"
    return leaf_of(stage, f'{{"alg":"Ed25519","jwk":{{}},"kid":"{kid}","typ":"notice+jws"}}'.encode())


@attack("malformed-statement")
def header_in_another_order(stage: Stage) -> Leaf:
    return leaf_of(
        stage, f'{{"kid":"{stage.officer.state}/cp/1","alg":"Ed25519","typ":"notice+jws"}}'.encode()
    )


@attack("malformed-statement")
def padded_base64url(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    return leaf + b"==", parts


@attack("malformed-statement")
def spare_bits_in_base64url(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return leaf[:-1] + alphabet[alphabet.index(leaf[-1:]) + 1 :][:1], parts


@attack("malformed-statement")
def four_segments(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    return leaf + b"." + b"A" * 86, parts


@attack("malformed-statement")
def duplicate_member_in_the_payload(stage: Stage) -> Leaf:
    leaf, _ = stage.sign()
    return leaf_of(stage, payload=payload_of(leaf).replace(b'"iat":', b'"iat":1,"iat":'))


@attack("malformed-statement")
def white_space_in_the_payload(stage: Stage) -> Leaf:
    leaf, _ = stage.sign()
    return leaf_of(stage, payload=payload_of(leaf).replace(b'"iat":', b'"iat": '))


@attack("malformed-statement")
def nan_in_the_payload(stage: Stage) -> Leaf:
    leaf, _ = stage.sign()
    return leaf_of(stage, payload=payload_of(leaf).replace(b'"v":1', b'"v":NaN'))


@attack("malformed-statement")
def fraction_in_the_payload(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(iat=NOW + 0.5))


@attack("malformed-statement")
def deep_nesting_in_the_payload(stage: Stage) -> Leaf:
    leaf, _ = stage.sign()
    return leaf_of(stage, payload=payload_of(leaf).replace(b'"v":1', b'"v":' + b"[" * 2000 + b"]" * 2000))


@attack("malformed-statement")
def free_text_in_the_payload(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(comment="A. Person, Example Street"))


@attack("malformed-statement")
def unknown_statement_version(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(v=2))


@attack("malformed-statement")
def true_for_one(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(v=True))


@attack("malformed-statement")
def unknown_kind(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(kind="annul"))


@attack("malformed-statement")
def no_parts(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(parts=[]))[0], {}


@attack("malformed-statement")
def one_part_named_twice(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(parts=p["parts"] * 2))


@attack("malformed-statement")
def amendment_without_reference(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(kind="amend"))


@attack("malformed-statement")
def issue_with_reference(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(ref=stage.good.ref))


@attack("malformed-request", mirrored_code="malformed-statement")
def larger_than_a_leaf_may_be(stage: Stage) -> Leaf:
    return leaf_of(stage, change=lambda p: p.update(z="a" * 12_300))


# ── key, signature, log, time ─────────────────────────────────────────────────────────────────────────────────────


@attack("invalid-signature")
def signature_of_zeros(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    return leaf[: leaf.rindex(b".") + 1] + b"A" * 86, parts


@attack("invalid-signature")
def signed_with_a_key_nobody_listed(stage: Stage) -> Leaf:
    return stage.sign(signer=seeded("a stranger"))


@attack("invalid-signature")
def payload_changed_after_signing(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    head, body, signature = leaf.split(b".")
    changed = b64u_decode(body).replace(b'"iat":%d' % NOW, b'"iat":%d' % (NOW - 1))
    return b".".join((head, b64u_encode(changed).encode(), signature)), parts


@attack("unknown-key", 403)
def key_of_another_state(stage: Stage) -> Leaf:
    return stage.sign(signer=stage.other.signer, kid=f"{stage.other.state}/cp/1")


@attack("unknown-key", 403)
def key_the_roster_does_not_list(stage: Stage) -> Leaf:
    return stage.sign(kid=f"{stage.officer.state}/cp/77")


@attack("wrong-key-use", 403)
def key_listed_for_checkpoints(stage: Stage) -> Leaf:
    return stage.sign(kid=f"{stage.officer.state}/log/1")


@attack("wrong-key-use", 403)
def key_of_another_algorithm(stage: Stage) -> Leaf:
    return stage.sign(kid=f"{stage.officer.state}/cp/5")


@attack("key-not-active", 403)
def key_not_yet_valid(stage: Stage) -> Leaf:
    state = stage.officer.state
    return stage.sign(kid=f"{state}/cp/2", signer=seeded(f"{state}/cp/2"))


@attack("key-not-active", 403)
def key_expired(stage: Stage) -> Leaf:
    state = stage.officer.state
    return stage.sign(kid=f"{state}/cp/3", signer=seeded(f"{state}/cp/3"))


@attack("key-not-active", 403)
def key_revoked(stage: Stage) -> Leaf:
    state = stage.officer.state
    return stage.sign(kid=f"{state}/cp/4", signer=seeded(f"{state}/cp/4"))


@attack("wrong-log")
def statement_of_another_log(stage: Stage) -> Leaf:
    return stage.theirs.leaf, stage.theirs.parts


@attack("wrong-log")
def another_log_named(stage: Stage) -> Leaf:
    return stage.sign(log=origin_of(stage.other.state))


@attack("wrong-log")
def earlier_epoch_named(stage: Stage) -> Leaf:
    return stage.sign(log=stage.officer.origin.replace("/log/1", "/log/2"))


@attack("implausible-time", mirrored="fine")  # every node shows it as post-dated: test_times.py
def issued_in_2250(stage: Stage) -> Leaf:
    return stage.sign(iat=YEAR_2250)


@attack("implausible-time")
def over_before_it_begins(stage: Stage) -> Leaf:
    return stage.sign(exp=NOW - 1)


@attack("implausible-time", mirrored="fine")
def over_already(stage: Stage) -> Leaf:
    return stage.sign(stage.main(title="Over already"), iat=NOW - 3600, exp=NOW - 1800)


# ── the log's state machine ───────────────────────────────────────────────────────────────────────────────────────


def _amendment(stage: Stage, of: Signed, **kwargs: Any) -> Leaf:
    main = examples.amendment(of.id, of.ref, issuer=stage.officer.state)
    return stage.sign(main, "amend", ref=of.hash, **kwargs)


def _withdrawal(stage: Stage, of: Signed) -> Leaf:
    main = examples.withdrawal(of.id, of.ref, issuer=stage.officer.state)
    return stage.sign(main, "withdraw", ref=of.hash)


@attack("id-reused", 409)
def id_reused_with_other_bytes(stage: Stage) -> Leaf:
    return stage.sign(statement_id=stage.good.id)


@attack("id-reused", 409)
def id_of_the_notice_reused_by_its_amendment(stage: Stage) -> Leaf:
    return _amendment(stage, stage.good, statement_id=stage.good.id)


@attack("unknown-reference", 409)
def amend_another_states_notice(stage: Stage) -> Leaf:
    return _amendment(stage, stage.theirs)


@attack("unknown-reference", 409)
def withdraw_another_states_notice(stage: Stage) -> Leaf:
    return _withdrawal(stage, stage.theirs)


@attack("unknown-reference", 409)
def erase_another_states_notice(stage: Stage) -> Leaf:
    return _erasure(stage, stage.theirs.hash)


def _erasure(stage: Stage, ref: bytes) -> Leaf:
    signed = stage.officer.sign(None, "erase", ref=ref)
    return signed.leaf, signed.parts


@attack("notice-closed", 409)
def amend_a_withdrawn_notice(stage: Stage) -> Leaf:
    return _amendment(stage, stage.withdrawal)


@attack("notice-closed", 409)
def amend_the_version_before_the_withdrawal(stage: Stage) -> Leaf:
    return _amendment(stage, stage.withdrawn)


@attack("notice-closed", 409)
def withdraw_twice(stage: Stage) -> Leaf:
    return _withdrawal(stage, stage.withdrawal)


@attack("stale-reference", 409)
def amend_a_version_that_is_not_the_newest(stage: Stage) -> Leaf:
    return _amendment(stage, stage.amended)


@attack("stale-reference", 409)
def erase_a_version_that_is_not_the_newest(stage: Stage) -> Leaf:
    return _erasure(stage, stage.amended.hash)


@attack("notice-closed", 409)
def amend_an_erased_notice(stage: Stage) -> Leaf:
    return _amendment(stage, stage.erased)


@attack("notice-closed", 409)
def erase_twice(stage: Stage) -> Leaf:
    return _erasure(stage, stage.erased.hash)


@attack("unknown-reference", 409)
def amend_an_erasure(stage: Stage) -> Leaf:
    return _amendment(stage, stage.erasure)


# ── the main part ─────────────────────────────────────────────────────────────────────────────────────────────────


def _raw(stage: Stage, old: bytes, new: bytes) -> Leaf:
    """A main part whose bytes are changed before they are signed for."""
    raw = canonical(stage.main())
    assert old in raw
    return stage.sign(raw.replace(old, new, 1))


@attack("malformed-json", mirrored="body")
def duplicate_member_in_the_notice(stage: Stage) -> Leaf:
    return _raw(stage, b'"caveats":', b'"caveats":[],"caveats":')


@attack("malformed-json", mirrored="body")
def nan_in_the_notice(stage: Stage) -> Leaf:
    return _raw(stage, b'"caveats":[]', b'"caveats":NaN')


@attack("malformed-json", mirrored="body")
def deep_nesting_in_the_notice(stage: Stage) -> Leaf:
    return _raw(stage, b'"caveats":[]', b'"caveats":' + b"[" * 33 + b"]" * 33)


@attack("malformed-json", mirrored="body")
def very_deep_nesting_in_the_notice(stage: Stage) -> Leaf:
    return _raw(stage, b'"caveats":[]', b'"caveats":' + b"[" * 100_000 + b"]" * 100_000)


@attack("malformed-json", mirrored="body")
def bad_utf8_in_the_notice(stage: Stage) -> Leaf:
    return _raw(stage, b"Denied:", b"Denied\xff:")


@attack("malformed-json", mirrored="body")
def lone_surrogate_in_the_notice(stage: Stage) -> Leaf:
    return _raw(stage, b"Denied:", b"Denied\\ud800:")


@attack("malformed-json", mirrored="body")
def notice_cut_off(stage: Stage) -> Leaf:
    return stage.sign(canonical(stage.main())[:-1])


@attack("invalid-notice", mirrored="body")
def notice_that_is_a_list(stage: Stage) -> Leaf:
    return stage.sign(b"[]")


@attack("unknown-notice-type", mirrored="body")
def unknown_type(stage: Stage) -> Leaf:
    return stage.sign(stage.main(type="rumour"))


@attack("unknown-schema-version", mirrored="body")
def unknown_schema_version(stage: Stage) -> Leaf:
    return stage.sign(stage.main(schema_version="2.0.0"))


@attack("invalid-notice", mirrored="body")
def member_nobody_defined(stage: Stage) -> Leaf:
    return stage.sign(stage.main(urgency="high"))


@attack("invalid-notice", mirrored="body")
def empty_audience(stage: Stage) -> Leaf:
    return stage.sign(stage.main(tlp="TLP:AMBER", audience=[]))


@attack("invalid-notice", mirrored="body")
def red_without_a_list(stage: Stage) -> Leaf:
    return stage.sign(stage.main(tlp="TLP:RED", audience="ALL"))


@attack("invalid-notice", mirrored="body")
def strict_without_a_list(stage: Stage) -> Leaf:
    return stage.sign(stage.main(tlp="TLP:AMBER+STRICT", audience="ALL"))


@attack("invalid-notice", mirrored="body")
def unknown_marking(stage: Stage) -> Leaf:
    return stage.sign(stage.main(tlp="TLP:WHITE"))


@attack("invalid-notice", mirrored="body")
def invalid_control_code(stage: Stage) -> Leaf:
    return stage.sign(stage.main(body={"items": [examples.item("5Z001")]}))


@attack("invalid-notice", mirrored="body")
def unknown_country(stage: Stage) -> Leaf:
    return stage.sign(stage.main(body={"destination": "ZZ"}))


@attack("invalid-notice", mirrored="body")
def control_character_in_the_title(stage: Stage) -> Leaf:
    return stage.sign(stage.main(title="Denied\x07"))


@attack("invalid-notice", mirrored="body")
def bidi_override_in_a_name(stage: Stage) -> Leaf:
    return stage.sign(stage.main(body={"parties": [examples.party("Aurelian \u202eyks")]}))


@attack("invalid-notice", mirrored="body")
def zero_width_space_in_a_name(stage: Stage) -> Leaf:
    return stage.sign(stage.main(body={"parties": [examples.party("Aure\u200blian")]}))


@attack("issuer-mismatch", 403, mirrored="body")
def in_the_name_of_another_state(stage: Stage) -> Leaf:
    return stage.sign(stage.main(issuer=stage.other.state))


@attack("kind-mismatch", mirrored="body")
def withdrawal_carried_by_an_issue(stage: Stage) -> Leaf:
    return stage.sign(examples.withdrawal(stage.good.id, stage.good.ref, issuer=stage.officer.state))


@attack("reference-mismatch", mirrored="body")
def acknowledgement_of_something_else_than_ref(stage: Stage) -> Leaf:
    main = examples.acknowledgement(stage.theirs.id, stage.theirs.ref, issuer=stage.officer.state)
    return stage.sign(main, "ack", ref=stage.good.hash)


@attack("parts-mismatch", mirrored="body")
def attachment_listed_and_not_committed(stage: Stage) -> Leaf:
    return stage.sign(examples.assurance(issuer=stage.officer.state))


@attack("parts-mismatch", mirrored="body")
def attachment_committed_and_not_listed(stage: Stage) -> Leaf:
    return stage.sign(attachments={"scan": ("application/pdf", b"%PDF-1.7")})


# ── the opened parts ──────────────────────────────────────────────────────────────────────────────────────────────


@attack("commitment-mismatch", mirrored="wanted")
def flipped_bit_in_the_body(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    content = bytearray(parts["main"].content)
    content[len(content) // 2] ^= 1
    return leaf, {"main": Part(parts["main"].salt, bytes(content))}


@attack("commitment-mismatch", mirrored="wanted")
def one_space_more_in_the_body(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    return leaf, {"main": Part(parts["main"].salt, parts["main"].content + b" ")}


@attack("commitment-mismatch", mirrored="wanted")
def wrong_salt(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    return leaf, {"main": Part(os.urandom(32), parts["main"].content)}


@attack("commitment-mismatch", mirrored="wanted")
def short_salt(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    return leaf, {"main": Part(parts["main"].salt[:31], parts["main"].content)}


@attack("commitment-mismatch", mirrored="wanted")
def body_of_another_notice(stage: Stage) -> Leaf:
    return stage.sign()[0], stage.good.parts


@attack("parts-mismatch", mirrored="wanted")
def part_missing(stage: Stage) -> Leaf:
    main = examples.assurance(issuer=stage.officer.state)
    leaf, parts = stage.sign(main, attachments={"statement": ("application/pdf", b"%PDF-1.7")})
    return leaf, {"main": parts["main"]}


@attack("parts-mismatch", mirrored="wanted")
def part_too_many(stage: Stage) -> Leaf:
    leaf, parts = stage.sign()
    return leaf, parts | {"scan": Part(os.urandom(32), b"%PDF-1.7")}


@attack("commitment-mismatch", mirrored="wanted")
def parts_exchanged(stage: Stage) -> Leaf:
    main = examples.assurance(issuer=stage.officer.state)
    leaf, parts = stage.sign(main, attachments={"statement": ("application/pdf", b"%PDF-1.7")})
    return leaf, {"main": parts["statement"], "statement": parts["main"]}


def shows_in(attack_: Attack) -> str | None:
    """The code a mirror shows for it, or None."""
    return attack_.mirrored_code if attack_.mirrored in ("statement", "body") else None
