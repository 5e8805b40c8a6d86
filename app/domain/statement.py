"""A statement: the small signed header that becomes a leaf of a State's log.

A leaf is the ASCII bytes of one compact JWS (RFC 7515) with exactly one spelling: the protected header has three members
in a fixed order, the payload is RFC 8785 canonical JSON, base64url is canonical. Two parsers can therefore never disagree
about which leaf they read. `parse` establishes the format and nothing else: not the key, not the signature, not the log.
`docs/protocol.md` gives the bytes with test vectors.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

import orjson

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import MalformedStatement, NonCanonicalEncoding
from app.domain.json import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.domain.keys import Signer

Kind = Literal["issue", "amend", "withdraw", "ack", "erase", "roster", "anchor", "evidence"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
KINDS_WITH_REF: Final = frozenset({"amend", "withdraw", "ack", "erase"})
KINDS_WITHOUT_PARTS: Final = frozenset({"erase"})
NOTICE_KINDS: Final = frozenset({"issue", "amend", "withdraw"})
"""Kinds that open or advance a notice."""

NODE_KINDS: Final = frozenset({"roster", "anchor", "evidence"})
"""Kinds that a node says by itself. Their bodies are public."""

MIN_LEAF_BYTES: Final = 200
MAX_LEAF_BYTES: Final = 16_384
"""A leaf has a 16-bit length in an entry bundle (C2SP tlog-tiles); a quarter of that keeps bundles under 4 MiB."""
MAX_PARTS: Final = 16
MAX_TIME: Final = 2**40
"""Unix seconds; far beyond any real date, and safely an integer in every JSON library (RFC 8785 section 3.2.2.3)."""

MAIN_PART: Final = "main"
MAIN_MEDIA_TYPE: Final = "application/json"

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_KID = re.compile(r"[A-Z]{2}/[a-z]{1,16}/[1-9][0-9]{0,5}")
_ORIGIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?/log/[1-9][0-9]{0,5}")
_PART_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")
_PROTECTED = re.compile(
    rb'\{"alg":"(Ed25519|ES256)","kid":"([A-Z]{2}/[a-z]{1,16}/[1-9][0-9]{0,5})","typ":"notice\+jws"\}'
)
_REQUIRED = frozenset({"v", "log", "id", "kind", "iat", "parts"})
_OPTIONAL = frozenset({"exp", "ref"})
_MEMBERS = _REQUIRED | _OPTIONAL
_PART_MEMBERS = {"p", "t", "c"}
_HASH_BYTES = 32


def is_origin(text: str) -> bool:
    """Whether `text` has the form of a log's origin, `<host>/log/<epoch>`."""
    return _ORIGIN.fullmatch(text) is not None


def is_kid(text: str) -> bool:
    """Whether `text` has the form of a key id, for instance `EE/cp/1`."""
    return _KID.fullmatch(text) is not None


def is_statement_id(text: str) -> bool:
    """Whether `text` is a lower-case UUIDv7 (RFC 9562)."""
    return _UUID7.fullmatch(text) is not None


# Named tuples: as immutable as frozen data classes, and made in a third of the time; three are made of every notice, twice.


class PartCommitment(NamedTuple):
    """One body part as a statement names it: name, media type, 32-byte commitment."""

    name: str
    media_type: str
    commitment: bytes

    def __repr__(self) -> str:
        """Show nothing that tells of a body."""
        return f"PartCommitment(name={self.name!r}, media_type={self.media_type!r})"


class Part(NamedTuple):
    """One opened body part: the salt and the exact bytes."""

    salt: bytes
    content: bytes

    def __repr__(self) -> str:
        """Show nothing of a body."""
        return "Part()"


class Statement(NamedTuple):
    """A leaf, read. Its format holds; its signature has not been checked.

    Attributes:
        leaf: the exact bytes.
        leaf_hash: SHA-256(0x00 ‖ leaf), RFC 6962 section 2.1.
        iat, exp: unix seconds.
        ref: leaf hash of the version acted on, or None.
    """

    leaf: bytes
    leaf_hash: bytes
    alg: str
    kid: str
    log: str
    id: str
    kind: Kind
    iat: int
    exp: int | None
    ref: bytes | None
    parts: tuple[PartCommitment, ...]
    signature: bytes

    def __repr__(self) -> str:
        """Show what a log of a process may hold."""
        return f"Statement(log={self.log!r}, id={self.id!r}, kind={self.kind!r}, kid={self.kid!r}, iat={self.iat})"

    @property
    def signing_input(self) -> bytes:
        """The bytes under the signature: everything before the last dot (RFC 7515 section 5.1)."""
        return self.leaf[: self.leaf.rindex(b".")]

    def part(self, name: str) -> PartCommitment | None:
        """The commitment for the part `name`, or None."""
        return next((p for p in self.parts if p.name == name), None)


def hash_leaf(leaf: bytes) -> bytes:
    """RFC 6962 leaf hash."""
    return sha256(b"\x00" + leaf).digest()


def parse(leaf: bytes) -> Statement:
    """Read a leaf.

    Raises:
        MalformedStatement: anything that deviates from the one spelling; the message names what.
    """
    if not MIN_LEAF_BYTES <= len(leaf) <= MAX_LEAF_BYTES:
        raise MalformedStatement(
            f"A statement has {MIN_LEAF_BYTES} to {MAX_LEAF_BYTES} bytes; this one has {len(leaf)}. Put text into a body part."
        )
    segments = leaf.split(b".")
    if len(segments) != 3:  # noqa: PLR2004 - compact JWS
        raise MalformedStatement("A statement is a compact JWS: three base64url segments joined by two dots.")
    try:
        protected, payload, signature = (b64u_decode(s) for s in segments)
    except NonCanonicalEncoding as error:
        raise MalformedStatement(f"A segment of the statement is malformed. {error}") from error
    header = _PROTECTED.fullmatch(protected)
    if header is None:
        raise MalformedStatement(
            'The protected header must be exactly {"alg":"Ed25519","kid":"<CC>/<use>/<n>","typ":"notice+jws"} (or ES256): '
            "these members, this order, no white space, no others."
        )
    alg, kid = header[1].decode(), header[2].decode()
    if len(signature) != 64:  # noqa: PLR2004 - both algorithms
        raise MalformedStatement(f"A signature has 64 bytes; this one has {len(signature)}.")
    members = _payload(payload)
    return Statement(
        leaf=leaf,
        leaf_hash=hash_leaf(leaf),
        alg=alg,
        kid=kid,
        log=members["log"],
        id=members["id"],
        kind=members["kind"],
        iat=members["iat"],
        exp=members.get("exp"),
        ref=members["ref"],
        parts=members["parts"],
        signature=signature,
    )


def _payload(payload: bytes) -> dict[str, Any]:
    try:
        members = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise MalformedStatement(f"The payload is not JSON: {error}.") from error
    if not isinstance(members, dict):
        raise MalformedStatement("The payload must be a JSON object.")
    names = members.keys()
    if not names >= _REQUIRED or not names <= _MEMBERS:
        odd = sorted((_REQUIRED - names) | (names - _REQUIRED - _OPTIONAL))
        raise MalformedStatement(f"The payload lacks or adds members: {', '.join(odd)[:200]}.")
    # Every value below is ASCII or an integer, and for those orjson with sorted members writes RFC 8785 exactly. Equality
    # also excludes duplicate members, as only one of them survives parsing.
    if orjson.dumps(members, option=orjson.OPT_SORT_KEYS) != payload:
        raise MalformedStatement(
            "The payload is not canonical JSON (RFC 8785): sort members, no white space, no duplicates."
        )
    if type(members["v"]) is not int or members["v"] != 1:
        raise MalformedStatement("Only statement version 1 is known.")
    _check_text(members, "log", _ORIGIN, "an origin such as ee.example/log/1")
    _check_text(members, "id", _UUID7, "a lower-case UUIDv7")
    if members["kind"] not in KINDS:
        raise MalformedStatement(f"Unknown kind; use one of: {', '.join(KINDS)}.")
    for name in ("iat", "exp"):
        value = members.get(name, 0)
        if type(value) is not int or not 0 <= value <= MAX_TIME:
            raise MalformedStatement(f"{name} must be whole unix seconds between 0 and 2^40.")
    members["ref"] = _ref(members)
    members["parts"] = _parts(members["kind"], members["parts"])
    return members


def _check_text(members: dict[str, Any], name: str, pattern: re.Pattern[str], what: str) -> None:
    value = members[name]
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise MalformedStatement(f"{name} must be {what}.")


def _ref(members: dict[str, Any]) -> bytes | None:
    ref = members.get("ref")
    if (members["kind"] in KINDS_WITH_REF) != ("ref" in members):
        raise MalformedStatement(
            "ref is required for amend, withdraw, ack and erase, and not allowed for other kinds."
        )
    return None if "ref" not in members else _hash(ref, "ref")


def _hash(text: object, name: str) -> bytes:
    if not isinstance(text, str):
        raise MalformedStatement(f"{name} must be a base64url text.")
    try:
        value = b64u_decode(text)
    except NonCanonicalEncoding as error:
        raise MalformedStatement(f"{name}: {error}") from error
    if len(value) != _HASH_BYTES:
        raise MalformedStatement(f"{name} must hold {_HASH_BYTES} bytes.")
    return value


def _parts(kind: str, parts: object) -> tuple[PartCommitment, ...]:
    if not isinstance(parts, list) or len(parts) > MAX_PARTS:
        raise MalformedStatement(f"parts must be a list of at most {MAX_PARTS}.")
    read: list[PartCommitment] = []
    for part in parts:
        if not isinstance(part, dict) or part.keys() != _PART_MEMBERS:
            raise MalformedStatement("A part must have exactly the members p, t and c.")
        name, media_type = part["p"], part["t"]
        if not isinstance(name, str) or _PART_NAME.fullmatch(name) is None:
            raise MalformedStatement("A part's name is a lower-case word of at most 32 characters.")
        if not isinstance(media_type, str) or _MEDIA_TYPE.fullmatch(media_type) is None:
            raise MalformedStatement("A part's t must be a lower-case media type such as application/json.")
        read.append(PartCommitment(name, media_type, _hash(part["c"], "c")))
    if len({p.name for p in read}) != len(read):
        raise MalformedStatement("Two parts have the same name.")
    if kind in KINDS_WITHOUT_PARTS:
        if read:
            raise MalformedStatement(f"A statement of kind {kind} has no parts.")
    elif not read or read[0].name != MAIN_PART or read[0].media_type != MAIN_MEDIA_TYPE:
        raise MalformedStatement(f"The first part must be {MAIN_PART!r} with media type {MAIN_MEDIA_TYPE}.")
    return tuple(read)


def sign(
    signer: Signer,
    *,
    kid: str,
    log: str,
    statement_id: str,
    kind: Kind,
    iat: int,
    parts: Sequence[PartCommitment],
    exp: int | None = None,
    ref: bytes | None = None,
) -> Statement:
    """Make and sign a statement; the result has passed `parse`.

    Raises:
        MalformedStatement: the values do not make a valid statement.
    """
    payload: dict[str, Any] = {
        "v": 1,
        "log": log,
        "id": statement_id,
        "kind": kind,
        "iat": iat,
        "parts": [{"p": p.name, "t": p.media_type, "c": b64u_encode(p.commitment)} for p in parts],
    }
    if exp is not None:
        payload["exp"] = exp
    if ref is not None:
        payload["ref"] = b64u_encode(ref)
    protected = f'{{"alg":"{signer.public.alg}","kid":"{kid}","typ":"notice+jws"}}'.encode()
    signing_input = f"{b64u_encode(protected)}.{b64u_encode(canonical(payload))}".encode()
    return parse(signing_input + b"." + b64u_encode(signer.sign(signing_input)).encode())
