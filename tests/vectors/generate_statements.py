"""Write tests/vectors/statements/*.json: leaves and openings, byte for byte, for whoever writes a node of their own.

Run from the top of the repository: `python -m tests.vectors.generate_statements`. Everything is deterministic: keys come
from fixed seeds, Ed25519 signatures are deterministic, salts and times are constants. A test runs `vectors()` and compares.

`accepted.json` holds one leaf of each kind with its opened parts; `refused.json` holds leaves by what they try, each with
the code that both doors give; `commitments.json` holds openings and near misses. In all of them `leaf` stands as text
(`leaf_hex` where it is none), salts and contents as base64url, hashes in hexadecimal.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.domain.commitment import commit
from app.domain.encoding import b64u_encode
from app.domain.statement import KINDS, KINDS_WITH_REF, Part, PartCommitment, sign
from tests.federation.attacks import ATTACKS, Stage
from tests.federation.world import DAY, NOW, Officer, Signed, seeded, uuid7

FOLDER = Path(__file__).parent / "statements"
AT = NOW
KEYS = {
    "EE/cp/1": {"use": "notices", "active_from": NOW - DAY},
    "EE/cp/2": {"use": "notices", "active_from": NOW + 30 * DAY},
    "EE/cp/3": {"use": "notices", "active_from": NOW - 9 * DAY, "active_to": NOW},
    "EE/cp/4": {"use": "notices", "active_from": NOW - 9 * DAY, "revoked_at_index": 0},
    "EE/node/1": {"use": "node", "active_from": NOW - DAY},
    "EE/log/1": {"use": "log", "active_from": NOW - DAY},
}
"""The roster of these vectors: kid → what it says; the keys are `seeded(kid)`. Only Ed25519, whose signatures repeat."""

HEADER_ATTACKS = (
    "unsigned algorithm_none key_brought_along_in_the_header header_in_another_order padded_base64url "
    "spare_bits_in_base64url four_segments duplicate_member_in_the_payload white_space_in_the_payload nan_in_the_payload "
    "fraction_in_the_payload free_text_in_the_payload unknown_statement_version true_for_one unknown_kind no_parts "
    "one_part_named_twice amendment_without_reference issue_with_reference signature_of_zeros "
    "signed_with_a_key_nobody_listed payload_changed_after_signing key_of_another_state key_the_roster_does_not_list "
    "key_listed_for_checkpoints key_not_yet_valid key_expired key_revoked another_log_named earlier_epoch_named "
    "issued_in_2250 over_before_it_begins"
).split()


class Deterministic(Officer):
    """An officer whose ids and salts are counted instead of drawn. Never sign anything real like this."""

    def sign(self, *args: Any, **kwargs: Any) -> Signed:
        count = Deterministic.count = Deterministic.count + 1
        defaults = {"statement_id": uuid7(f"vector {count}"), "salt": salt(f"vector {count}")}
        return super().sign(*args, **(defaults | kwargs))

    count = 0


def salt(label: str) -> bytes:
    return sha256(f"verbale vector salt: {label}".encode()).digest()


def opened(parts: dict[str, Part]) -> dict[str, dict[str, str]]:
    return {n: {"salt": b64u_encode(p.salt), "content": b64u_encode(p.content)} for n, p in parts.items()}


def accepted() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for kind in KINDS:
        use = "node" if kind in ("roster", "anchor", "evidence") else "cp"
        statement_id = uuid7(f"vector {kind}")
        contents = {} if kind == "erase" else {"main": b'{"vector":"%s"}' % kind.encode()}
        parts = {name: Part(salt(f"{kind} {name}"), content) for name, content in contents.items()}
        statement = sign(
            seeded(f"EE/{use}/1"),
            kid=f"EE/{use}/1",
            log="ee.verbale.example/log/1",
            statement_id=statement_id,
            kind=kind,
            iat=NOW,
            exp=NOW + 30 * DAY if kind == "issue" else None,
            ref=sha256(b"another leaf").digest() if kind in KINDS_WITH_REF else None,
            parts=[
                PartCommitment(n, "application/json", commit(p.salt, statement_id, n, p.content))
                for n, p in parts.items()
            ],
        )
        made[kind] = {
            "leaf": statement.leaf.decode(),
            "leaf_hash": statement.leaf_hash.hex(),
            "id": statement_id,
            "kid": statement.kid,
            "parts": opened(parts),
        }
    return made


def refused() -> dict[str, Any]:
    Deterministic.count = 0
    stage = Stage(Deterministic("EE", seeded("EE/cp/1")), Deterministic("US", seeded("US/cp/1")))
    made = {}
    for name in HEADER_ATTACKS:
        leaf, _ = ATTACKS[name].build(stage)
        made[name] = {"code": ATTACKS[name].mirrored_code, "leaf": leaf.decode("ascii")}
    return made


def commitments() -> dict[str, Any]:
    def case(notice_id: str, part: str, content: bytes, label: str) -> dict[str, str]:
        return {
            "salt": b64u_encode(salt(label)),
            "id": notice_id,
            "part": part,
            "content": b64u_encode(content),
            "commitment": commit(salt(label), notice_id, part, content).hex(),
        }

    some = uuid7("vector commitment")
    return {
        "openings": [
            case(some, "main", b'{"a":1}', "one"),
            case(some, "main", b"", "empty"),
            case(some, "scan", bytes(range(256)), "binary"),
        ],
        "different": [
            case(some, "main", b'{"a":1}', "other salt"),
            case(uuid7("vector other"), "main", b'{"a":1}', "one"),
            case(some, "main2", b'{"a":1}', "one"),
            case(some, "main", b'{"a":1} ', "one"),
        ],
    }


def vectors() -> dict[str, str]:
    """File name → text."""
    roster = {kid: {"public": seeded(kid).public.text(), **listed} for kid, listed in KEYS.items()}
    context = {"origin": "ee.verbale.example/log/1", "at": AT, "keys": roster}
    found = {
        "accepted.json": {"context": context, "leaves": accepted()},
        "refused.json": {"context": context, "leaves": refused()},
        "commitments.json": commitments(),
    }
    return {name: json.dumps(value, indent=1, ensure_ascii=True) + "\n" for name, value in found.items()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in vectors().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
