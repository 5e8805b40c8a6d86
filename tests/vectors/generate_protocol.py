"""Write tests/vectors/protocol/*.json: what docs/protocol.md says in bytes, for whoever writes a node of their own.

Run from the top of the repository: `python -m tests.vectors.generate_protocol`. Everything is deterministic: keys come
from fixed seeds (test only, they are published), salts and ids from labels, times are constants, Ed25519 and RFC 6979
signatures are deterministic. A test runs `vectors()` and compares. The tree's own vectors are in tests/vectors/tlog.

Texts stand as they are, binary values as base64url without padding unless the member is named `hex`. `refused` holds
inputs that a node must not accept, each with the code of the refusal (docs/problems.md).
"""

import hashlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from app.domain.commitment import commit
from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.json import canonical
from app.domain.keys import PublicKey, Signer
from app.domain.roster import Roster, RosterKey, RosterLog, RosterState
from app.domain.statement import Kind, PartCommitment, Statement, sign
from app.keyfiles import KeyCard, possession_message
from app.replication import signatures
from app.replication.witness import policy_of
from app.tlog.checkpoint import Checkpoint, sign_checkpoint
from app.tlog.confirm import encode_history
from app.tlog.cosignature import CosignerKey, cosign, cosigned_message, with_cosignatures
from app.tlog.merkle import Frontier, consistency_proof, inclusion_proof
from app.tlog.note import VerifierKey
from app.tlog.tiles import BundlePath, TilePath, encode_bundle, extend_tiles, nodes_from_tiles
from app.tlog.witness import Submission, encode_cosignatures, encode_size, origin_hash
from tests.vectors.generate_tlog import seed
from tests.vectors.generate_tlog import signer as ed25519

FOLDER = Path(__file__).parent / "protocol"
EE, JP = "ee.verbale.example/log/1", "jp.verbale.example/log/1"
WITNESS = "nl.verbale.example/witness"
AT = 1_790_000_000  # 2026-09-21T13:33:20Z
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
URL = "https://ee.verbale.example/bodies"


@dataclass(frozen=True)
class Rfc6979Signer:
    """A P-256 signer whose signatures are the same every time, as vectors need."""

    private: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> PublicKey:
        numbers = self.private.public_key().public_numbers()
        return PublicKey("ES256", b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))

    def sign(self, message: bytes) -> bytes:
        algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        r, s = decode_dss_signature(self.private.sign(message, algorithm))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def p256(label: str) -> Rfc6979Signer:
    scalar = int.from_bytes(seed(label), "big") % (P256_ORDER - 1) + 1
    return Rfc6979Signer(ec.derive_private_key(scalar, ec.SECP256R1()))


KEYS: dict[str, Signer] = {
    "EE/cp/1": ed25519("EE/cp/1"),
    "EE/cp/2": p256("EE/cp/2"),
    "EE/cp/3": ed25519("EE/cp/3"),
    "EE/node/1": ed25519("EE/node/1"),
    "JP/cp/1": ed25519("JP/cp/1"),
    "JP/transport/1": ed25519("JP/transport/1"),
}
LOG, COSIGNER = ed25519(EE), ed25519(WITNESS)
USES = {"cp": "notices", "node": "node", "transport": "transport"}


def roster() -> Roster:
    """The roster the vectors are judged by: EE/cp/3 is revoked from index 2 of the log on."""
    states = {}
    for code, origin in (("EE", EE), ("JP", JP)):
        keys = tuple(
            RosterKey(
                kid,
                USES[kid.split("/")[1]],  # type: ignore[arg-type]  # a use by its name
                signer.public,
                AT - 3600,
                revoked_at_index=2 if kid == "EE/cp/3" else None,
            )
            for kid, signer in KEYS.items()
            if kid.startswith(code)
        )
        logs = (RosterLog(origin, 1, f"https://{origin}"),)
        states[code] = RosterState(
            code, code, joined="2023", url=f"https://{origin[:18]}", logs=logs, keys=keys
        )
    return Roster(7, "00" * 32, AT + 86_400, MappingProxyType(states))


def salt(label: str) -> bytes:
    return seed(f"salt {label}")


def statement_id(label: str, at: int) -> str:
    raw = bytearray((at * 1000).to_bytes(6, "big") + seed(f"id {label}")[:10])
    raw[6], raw[8] = raw[6] & 15 | 0x70, raw[8] & 63 | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


@dataclass(frozen=True)
class Said:
    """One signed statement with its opened parts."""

    statement: Statement
    parts: dict[str, tuple[bytes, bytes]]

    def wire(self) -> dict[str, Any]:
        parts = {
            name: {"salt": b64u_encode(salt), "content": b64u_encode(content)}
            for name, (salt, content) in self.parts.items()
        }
        return {"statement": self.statement.leaf.decode(), "parts": parts}


def say(
    label: str,
    main: dict[str, Any] | None,
    kid: str = "EE/cp/1",
    *,
    log: str = EE,
    kind: Kind = "issue",
    at: int = AT,
    ref: bytes | None = None,
    exp: int | None = None,
    attachment: bytes | None = None,
) -> Said:
    name = statement_id(label, at)
    contents: dict[str, tuple[str, bytes]] = (
        {} if main is None else {"main": ("application/json", canonical(main))}
    )
    if attachment is not None:
        contents["letter"] = ("text/plain", attachment)
    parts = {part: (salt(f"{label} {part}"), content) for part, (_, content) in contents.items()}
    commitments = [
        PartCommitment(part, media_type, commit(parts[part][0], name, part, content))
        for part, (media_type, content) in contents.items()
    ]
    statement = sign(
        KEYS[kid], kid=kid, log=log, statement_id=name, kind=kind, iat=at, parts=commitments, exp=exp, ref=ref
    )
    return Said(statement, parts)


def main_part(**members: Any) -> dict[str, Any]:
    """A short denial of a fictional party."""
    return {
        "schema_version": "1.0.0",
        "type": "denied_end_user",
        "issuer": "EE",
        "tlp": "TLP:GREEN",
        "audience": "ALL",
        "language": "en",
        "title": "Denied: Aurelian Sky Systems LLC",
        "summary": "A fictional licence refused on human-rights grounds.",
        "contact": {
            "role": "point_of_contact",
            "office": "Strategic Goods Commission",
            "email": "contact@ee.example",
        },
        "body": {
            "action": "refused",
            "denied_on": "2026-09-14",
            "legal_basis": ["Regulation (EU) 2021/821, article 5"],
            "parties": [
                {
                    "role": "end_user",
                    "ftm": {
                        "schema": "Company",
                        "properties": {"name": ["Aurelian Sky Systems LLC"], "country": ["ZM"]},
                    },
                }
            ],
            "items": [
                {
                    "description": "IP network communications surveillance system",
                    "codes": [{"system": "EU", "edition": "2025/2003", "code": "5A001.j"}],
                }
            ],
            "destination": "ZM",
            "reasons": ["HUMAN_RIGHTS"],
            "concerns": [{"code": "HR-SURV-TARGET", "severity": "high", "victims": ["journalists"]}],
            "status": "active",
        },
    } | members


def follow_up(notice_type: str, body: dict[str, Any], issuer: str = "EE", **members: Any) -> dict[str, Any]:
    base = {name: value for name, value in main_part().items() if name != "body"}
    return (
        base
        | {"type": notice_type, "issuer": issuer, "title": f"{notice_type}: Aurelian Sky", "body": body}
        | members
    )


def reference(said: Said, root: Said) -> dict[str, str]:
    return {"id": root.statement.id, "hash": b64u_encode(said.statement.leaf_hash)}


def life() -> dict[str, Said]:
    """Everything that can happen to one notice, in log order; `acknowledged` stands in Japan's log."""
    issued = say(
        "issued",
        main_part(
            attachments=[{"part": "letter", "name": "letter.txt", "media_type": "text/plain", "size": 15}]
        ),
        attachment=b"Dear colleagues",
    )
    amended = say(
        "amended",
        follow_up(
            "amendment",
            {
                "amends": reference(issued, issued),
                "change": {"replacement": main_part(review_due="2029-09-14")},
                "reason": "renewal",
            },
        ),
        "EE/cp/2",
        kind="amend",
        at=AT + 60,
        ref=issued.statement.leaf_hash,
        exp=AT + 94_608_000,
    )
    acknowledged = say(
        "acknowledged",
        follow_up("acknowledgement", {"notice": reference(amended, issued), "state": "received"}, "JP"),
        "JP/cp/1",
        log=JP,
        kind="ack",
        at=AT + 90,
        ref=amended.statement.leaf_hash,
    )
    withdrawn = say(
        "withdrawn",
        follow_up(
            "withdrawal",
            {
                "withdraws": reference(amended, issued),
                "kind": "revoked",
                "reason": "The refusal was annulled by a court.",
                "effective_on": "2026-09-21",
            },
        ),
        kind="withdraw",
        at=AT + 120,
        ref=amended.statement.leaf_hash,
    )
    erased = say("erased", None, "EE/node/1", kind="erase", at=AT + 180, ref=withdrawn.statement.leaf_hash)
    return {
        "issued": issued,
        "amended": amended,
        "withdrawn": withdrawn,
        "erased": erased,
        "acknowledged": acknowledged,
    }


# ── statements ────────────────────────────────────────────────────────────────────────────────────────────────────


def keys() -> dict[str, Any]:
    return {
        kid: {"use": USES[kid.split("/")[1]], "alg": signer.public.alg, "seed_hex": seed(kid).hex()}
        | {"public": signer.public.text()}
        for kid, signer in KEYS.items()
    }


def described(said: Said) -> dict[str, Any]:
    statement = said.statement
    segments = statement.leaf.decode().split(".")
    return {
        "protected": _plain(segments[0]),
        "payload": _plain(segments[1]),
        "signature": segments[2],
        "leaf": statement.leaf.decode(),
        "leaf_hash": b64u_encode(statement.leaf_hash),
        "parts": {
            name: {
                "salt": b64u_encode(salt),
                "content": b64u_encode(content),
                "text": content.decode(),
                "commitment": b64u_encode(commit(salt, statement.id, name, content)),
            }
            for name, (salt, content) in said.parts.items()
        },
    }


def _plain(segment: str) -> str:
    return b64u_decode(segment).decode()


def resigned(protected: str, payload: str, kid: str = "EE/cp/1") -> str:
    """A leaf over any texts, with a genuine signature."""
    signing_input = f"{b64u_encode(protected.encode())}.{b64u_encode(payload.encode())}"
    return f"{signing_input}.{b64u_encode(KEYS[kid].sign(signing_input.encode()))}"


def spare_bits(segment: str) -> str:
    """Another spelling of the same bytes: the last character has bits nobody reads."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return segment[:-1] + alphabet[alphabet.index(segment[-1]) + 1]


def refused_leaves() -> dict[str, dict[str, Any]]:
    good = described(life()["issued"])
    protected, payload, leaf = good["protected"], good["payload"], good["leaf"]
    members = json.loads(payload)
    head, _, signature = leaf.rpartition(".")
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]

    def payload_with(**changes: Any) -> str:
        return canonical({k: v for k, v in (members | changes).items() if v is not ...}).decode()

    def leaf_with(**changes: Any) -> str:
        return resigned(protected, payload_with(**changes))

    cases: dict[str, tuple[str, str]] = {
        "another order in the protected header": (
            "malformed-statement",
            resigned('{"typ":"notice+jws","alg":"Ed25519","kid":"EE/cp/1"}', payload),
        ),
        "a further member in the protected header": (
            "malformed-statement",
            resigned(protected.replace('"typ"', '"crit":[],"typ"'), payload),
        ),
        "the deprecated EdDSA": (
            "malformed-statement",
            resigned(protected.replace("Ed25519", "EdDSA"), payload),
        ),
        "padding": ("malformed-statement", f"{head}.{signature}=="),
        "spare bits in the signature": ("malformed-statement", f"{head}.{spare_bits(signature)}"),
        "a blank in the payload": ("malformed-statement", resigned(protected, payload.replace(":", ": ", 1))),
        "a duplicate member": ("malformed-statement", resigned(protected, payload[:-1] + ',"v":1}')),
        "a fraction of a second": (
            "malformed-statement",
            resigned(protected, payload.replace(str(AT), f"{AT}.5")),
        ),
        "a further member": ("malformed-statement", leaf_with(note="x")),
        "version 2": ("malformed-statement", leaf_with(v=2)),
        "an id of version 4": ("malformed-statement", leaf_with(id="0b0c1f3a-5c00-4abc-8def-0123456789ab")),
        "an issue with a ref": ("malformed-statement", leaf_with(ref="A" * 43)),
        "an amendment without a ref": ("malformed-statement", leaf_with(kind="amend")),
        "an unknown kind": ("malformed-statement", leaf_with(kind="say")),
        "an erasure with parts": ("malformed-statement", leaf_with(kind="erase", ref="A" * 43)),
        "no main part": ("malformed-statement", leaf_with(parts=members["parts"][1:])),
        "two parts of one name": ("malformed-statement", leaf_with(parts=[members["parts"][0]] * 2)),
        "signed for another log": ("wrong-log", leaf_with(log=JP)),
        "a key the roster does not list": (
            "unknown-key",
            resigned(protected.replace("EE/cp/1", "EE/cp/9"), payload),
        ),
        "a key of another State": (
            "unknown-key",
            resigned(protected.replace("EE/cp/1", "JP/cp/1"), payload, "JP/cp/1"),
        ),
        "a node key that issues": (
            "wrong-key-use",
            resigned(protected.replace("EE/cp/1", "EE/node/1"), payload, "EE/node/1"),
        ),
        "a revoked key, at its index of revocation": (
            "key-not-active",
            resigned(protected.replace("EE/cp/1", "EE/cp/3"), payload, "EE/cp/3"),
        ),
        "signed before the key counts": ("key-not-active", leaf_with(iat=AT - 7200)),
        "one bit of the signature": ("invalid-signature", f"{head}.{flipped}"),
        "iat more than 300 s ahead of the judge": ("implausible-time", leaf_with(iat=AT + 301)),
        "over before it begins": ("implausible-time", leaf_with(exp=AT)),
    }
    return {what: {"code": code, "leaf": refused} for what, (code, refused) in cases.items()}


def refused_bodies() -> dict[str, dict[str, Any]]:
    """Signed notices whose statement holds and whose parts do not."""
    told = life()
    good = told["issued"].wire()
    other = say("other", main_part()).wire()
    letterless = {"main": good["parts"]["main"]}
    unlike = {
        "another salt": (
            "commitment-mismatch",
            good
            | {"parts": {**good["parts"], "main": {**good["parts"]["main"], "salt": b64u_encode(salt("x"))}}},
        ),
        "the body of another notice": (
            "commitment-mismatch",
            good | {"parts": {**good["parts"], "main": other["parts"]["main"]}},
        ),
        "a part is missing": ("parts-mismatch", good | {"parts": letterless}),
        "a part that the statement does not name": (
            "parts-mismatch",
            other | {"parts": {**other["parts"], "letter": good["parts"]["letter"]}},
        ),
        "an attachment that the main part does not list": (
            "parts-mismatch",
            say("unlisted", main_part(), attachment=b"Dear colleagues").wire(),
        ),
        "another issuer": ("issuer-mismatch", say("issuer", main_part(issuer="JP")).wire()),
        "an amendment as an issue": (
            "kind-mismatch",
            say(
                "kind",
                follow_up(
                    "withdrawal",
                    {
                        "withdraws": reference(told["issued"], told["issued"]),
                        "kind": "revoked",
                        "reason": "x",
                        "effective_on": "2026-09-21",
                    },
                ),
            ).wire(),
        ),
        "another version in the body than in ref": (
            "reference-mismatch",
            say(
                "reference",
                follow_up(
                    "withdrawal",
                    {
                        "withdraws": reference(told["issued"], told["issued"]),
                        "kind": "revoked",
                        "reason": "x",
                        "effective_on": "2026-09-21",
                    },
                ),
                kind="withdraw",
                ref=told["amended"].statement.leaf_hash,
            ).wire(),
        ),
        "an unknown type": ("unknown-notice-type", say("type", main_part(type="rumour")).wire()),
        "an unknown major version": (
            "unknown-schema-version",
            say("version", main_part(schema_version="9.0.0")).wire(),
        ),
        "a list is missing for TLP:RED": ("invalid-notice", say("red", main_part(tlp="TLP:RED")).wire()),
        "an empty audience": ("invalid-notice", say("empty", main_part(tlp="TLP:AMBER", audience=[])).wire()),
    }
    return {what: {"code": code, "signed": signed} for what, (code, signed) in unlike.items()}


def statements() -> dict[str, Any]:
    told = life()
    return {
        "about": "Test only: the seeds are SHA-256 of 'verbale vector: ' and the key id; their private keys are public.",
        "judged_at": AT,
        "roster": {"EE/cp/3": "revoked_at_index 2; every key counts from judged_at - 3600"},
        "keys": keys(),
        "origin": EE,
        "statements": {name: described(said) for name, said in told.items()},
        "posted": told["issued"].wire(),
        "refused_at_index_2": refused_leaves(),
        "refused_bodies": refused_bodies(),
        "refused_histories": refused_histories(),
    }


def refused_histories() -> dict[str, dict[str, Any]]:
    """Logs, each with a last leaf that the state machine refuses; the leaves before it are good."""
    told = life()
    issued, amended, withdrawn, erased = (told[name] for name in ("issued", "amended", "withdrawn", "erased"))
    late = say(
        "late", follow_up("withdrawal", {}), kind="withdraw", at=AT + 200, ref=issued.statement.leaf_hash
    )
    after = say("after", main_part(), kind="amend", at=AT + 200, ref=withdrawn.statement.leaf_hash)
    of_nothing = say("nothing", main_part(), kind="amend", at=AT + 200, ref=salt("no leaf"))
    reused = say("issued", main_part(title="Another body"))
    cases = {
        "the same leaf again": ("leaf-replayed", [issued, issued]),
        "its id under other bytes": ("id-reused", [issued, reused]),
        "an amendment of no version here": ("unknown-reference", [issued, of_nothing]),
        "a withdrawal of an earlier version": ("stale-reference", [issued, amended, late]),
        "an amendment of a withdrawn notice": ("notice-closed", [issued, amended, withdrawn, after]),
        "an erasure of an erased notice": (
            "notice-closed",
            [
                issued,
                amended,
                withdrawn,
                erased,
                say("again", None, "EE/node/1", kind="erase", at=AT + 200, ref=withdrawn.statement.leaf_hash),
            ],
        ),
    }
    return {
        what: {"code": code, "leaves": [said.statement.leaf.decode() for said in log]}
        for what, (code, log) in cases.items()
    }


# ── the log and its witness ───────────────────────────────────────────────────────────────────────────────────────


def log() -> dict[str, Any]:
    leaves = [said.statement for name, said in life().items() if name != "acknowledged"]
    hashed = [leaf.leaf_hash for leaf in leaves]
    store = {(tile.level, tile.index): tile.data for tile in extend_tiles(0, {}, hashed)}
    node = nodes_from_tiles(lambda level, index: store[level, index])
    heads = [Checkpoint(EE, size, Frontier().extend(hashed[:size]).root()) for size in (1, 4)]
    first, last = heads
    cosignature = cosign(last, WITNESS, COSIGNER, AT + 181)
    note = sign_checkpoint(last, LOG)
    return {
        "origin": EE,
        "origin_hash": origin_hash(EE),
        "keys": {
            "log": {"seed_hex": seed(EE).hex(), "vkey": VerifierKey(EE, LOG.public).encode()},
            "witness": {
                "seed_hex": seed(WITNESS).hex(),
                "vkey": CosignerKey(WITNESS, COSIGNER.public).encode(),
            },
        },
        "leaves": [leaf.leaf.decode() for leaf in leaves],
        "leaf_hashes": [b64u_encode(h) for h in hashed],
        "bundle": {
            "path": str(BundlePath(0, 4)),
            "sha256_hex": hashlib.sha256(encode_bundle([leaf.leaf for leaf in leaves])).hexdigest(),
        },
        "tile": {"path": str(TilePath(0, 0, 4)), "hex": store[0, 0].hex()},
        "inclusion": {str(i): [b64u_encode(h) for h in inclusion_proof(node, i, 4)] for i in range(4)},
        "checkpoint_1": sign_checkpoint(first, LOG).encode().decode(),
        "checkpoint_4": note.encode().decode(),
        "add_checkpoint": {
            "request": Submission(1, consistency_proof(node, 1, 4), note.encode()).encode().decode(),
            "cosigned_message": cosigned_message(last.body(), AT + 181).decode(),
            "answer_200": encode_cosignatures([cosignature]).decode(),
            "answer_409": encode_size(1).decode(),
        },
        "served": with_cosignatures(note, [cosignature]).encode().decode(),
    }


# ── quorum and time ───────────────────────────────────────────────────────────────────────────────────────────────


WITNESSES = ("FI", "JP", "NL", "US")
"""The other members of a federation of five: three of them are a quorum of EE's log."""


def five() -> Roster:
    """The roster of the vectors of quorum and time. US joined later than the others."""
    states = {}
    for code in ("EE", *WITNESSES):
        origin = f"{code.lower()}.verbale.example/log/1"
        keys = [RosterKey(f"{code}/witness/1", "witness", ed25519(f"{code}/witness/1").public, AT - 3600)]
        if code == "EE":
            keys.append(RosterKey("EE/log/1", "log", LOG.public, AT - 3600))
        states[code] = RosterState(
            code,
            code,
            joined="2026-09-22" if code == "US" else "2023-03-30",
            url=f"https://{origin.split('/', maxsplit=1)[0]}",
            logs=(RosterLog(origin, 1, f"https://{origin}"),),
            keys=tuple(keys),
            witness_name=f"{code.lower()}.verbale.example/witness",
        )
    return Roster(7, "00" * 32, AT + 86_400, MappingProxyType(states))


def cosigned(head: Checkpoint, times: dict[str, int]) -> str:
    """The checkpoint, cosigned by these States at these times."""
    lines = [
        cosign(head, f"{code.lower()}.verbale.example/witness", ed25519(f"{code}/witness/1"), at)
        for code, at in times.items()
    ]
    return with_cosignatures(sign_checkpoint(head, LOG), lines).encode().decode()


def time() -> dict[str, Any]:
    hashed = [said.statement.leaf_hash for name, said in life().items() if name != "acknowledged"]
    empty, first, last = (Checkpoint(EE, n, Frontier().extend(hashed[:n]).root()) for n in (0, 1, 4))
    day = 86_400
    confirmed = [
        {"size": 0, "at": AT + 20, "note": cosigned(empty, {"JP": AT + 20, "NL": AT + 10, "FI": AT + 900})},
        {"size": 1, "at": AT + 100, "note": cosigned(first, {"FI": AT + 1, "JP": AT + 100, "NL": AT + 101})},
        {
            "size": 1,
            "at": AT + 700,
            "note": cosigned(first, {"FI": AT + 700, "JP": AT + 700, "NL": AT + 2**40}),
        },
        {
            "size": 4,
            "at": AT + day + 800,
            "note": cosigned(
                last, {c: AT + day + n for c, n in zip(WITNESSES, (790, 800, 810, 820), strict=True)}
            ),
        },
    ]
    notes = [str(one["note"]) for one in confirmed]
    page = encode_history(note.encode() for note in notes)
    return {
        "origin": EE,
        "policy": policy_of(five(), EE).encode().decode(),
        "confirmed": confirmed,
        "history_0": {"length": len(page), "sha256_hex": hashlib.sha256(page).hexdigest()},
        "brackets": [
            {"index": index, "after": after, "before": before, "iat": iat, "flag": flag}
            for index, after, before, iat, flag in (
                (0, AT + 20, AT + 100, AT - 280, None),
                (0, AT + 20, AT + 100, AT - 281, "back-dated"),
                (0, AT + 20, AT + 100, AT + 400, None),
                (0, AT + 20, AT + 100, AT + 401, "post-dated"),
                (1, AT + 700, AT + day + 800, AT + 400, None),
                (1, AT + 700, AT + day + 800, AT + 399, "back-dated"),
                (4, AT + day + 800, None, 1, None),
            )
        ],
        "refused": {
            "two of three": cosigned(last, {"FI": AT, "JP": AT}),
            "the log's own witness does not count": cosigned(last, {"FI": AT, "JP": AT, "EE": AT}),
            "nor one of a State that had not joined": cosigned(last, {"FI": AT, "JP": AT, "US": AT}),
            "nobody": cosigned(last, {}),
        },
    }


# ── between nodes ─────────────────────────────────────────────────────────────────────────────────────────────────


def request() -> dict[str, Any]:
    body = b'{"bodies":[["ee.verbale.example/log/1",0],["ee.verbale.example/log/1",7]]}'
    kid, nonce = "JP/transport/1", "test-only-nonce-0001"
    signed = _Recording(KEYS[kid])
    headers = signatures.sign_request("POST", URL, body, signer=signed, kid=kid, at=AT + 200, nonce=nonce)
    issued = life()["issued"].wire()
    line = json.dumps({"origin": EE, "index": 0, "parts": issued["parts"]}, separators=(",", ":")) + "\n"
    return {
        "about": "JP asks for two bodies; it is entitled to the one at index 0, and nothing is said of the other.",
        "kid": kid,
        "key": {"seed_hex": seed(kid).hex(), "public": KEYS[kid].public.text()},
        "method": "POST",
        "url": URL,
        "body": body.decode(),
        "created": AT + 200,
        "nonce": nonce,
        "signature_base": signed.message.decode(),
        "headers": {name.lower(): value for name, value in headers.items()},
        "answer": line,
    }


@dataclass
class _Recording:
    signer: Signer
    message: bytes = b""

    @property
    def public(self) -> PublicKey:
        return self.signer.public

    def sign(self, message: bytes) -> bytes:
        self.message = message
        return self.signer.sign(message)


def card() -> dict[str, Any]:
    made = KeyCard.make(KEYS["EE/cp/1"], "EE/cp/1", "notices")
    message = possession_message("EE/cp/1", "notices", "EE", made.key)
    return {"key": "EE/cp/1", "possession_message_hex": message.hex(), "card": made.to_line().decode()}


def vectors() -> dict[str, str]:
    """File name → content."""
    parts = {
        "statement.json": statements(),
        "log.json": log(),
        "request.json": request(),
        "card.json": card(),
        "time.json": time(),
    }
    return {name: json.dumps(part, indent=1, ensure_ascii=False) + "\n" for name, part in parts.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
