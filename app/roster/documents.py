"""The two documents a roster consists of, and what may be said in them.

`federation.json` is signed by the threshold of States: who belongs, which dated terms, which logs are frozen.
`states/<cc>.json` is signed by that State alone: where its node is, its logs, its keys.

Guarantees: a document that was parsed here is complete, bounded and canonical; every key in it was admitted and has
proven possession; `check_together` and `check_succession` hold the rules that concern several documents or versions.
A client runs all of it again on what it downloads, since it does not trust whoever made the proposal. Leaves to others:
signatures (`app.roster.verify`) and the passing of time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from types import MappingProxyType
from typing import Final, get_args
from urllib.parse import urlsplit

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import Malformed, NonCanonicalEncoding, UnacceptableKey
from app.domain.json import JsonValue, canonical, parse_strict
from app.domain.keys import PublicKey
from app.domain.roster import (
    KEY_USES,
    CentralContactTerm,
    ContactPoint,
    LogStatus,
    MembershipStatus,
    Roster,
    RosterKey,
    RosterLog,
    RosterState,
)
from app.keyfiles import KeyCard, check_possession, state_of_kid
from app.roster.errors import RosterRefused

MAX_KEYS: Final = 512
"""One State's keys, past ones included: thirty years of eight kinds, renewed more often than asked for."""

MAX_LOGS: Final = 64
MAX_TEXT: Final = 200
MAX_PUBLIC_TEXT: Final = 1_700
"""An X-Wing key has 1,216 bytes, or 1,622 characters."""
EARLIEST: Final = 1_672_531_200
"""2023-01-01, the year of the Code of Conduct: no key of this federation is older."""
HASH_SIZE: Final = 32
MAX_TREE_SIZE: Final = 2**53 - 1
"""Whole numbers beyond it are not the same in every JSON library."""
LATEST: Final = 4_102_444_800
"""2100-01-01: later dates are slips."""

QUORUM_RULE: Final = "byzantine-majority/v1"
"""m = n-1 witnesses, f = floor((m-1)/3), q = smallest integer above (m+f)/2; all witnesses while f < 1."""

_ORIGIN: Final = re.compile(
    r"(?=.{4,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?/log/([1-9][0-9]{0,5})"
)
_WITNESS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9./:_-]{1,199}")
_CODE: Final = re.compile(r"[A-Z]{2}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_EMAIL: Final = re.compile(r"[^@\s]{1,64}@[^@\s]{3,190}")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


# ── reading members ───────────────────────────────────────────────────────────────────────────────────────────────


def _members(value: JsonValue, names: tuple[str, ...], what: str) -> dict[str, JsonValue]:
    """`value` as an object with exactly `names`: a member nobody checks is a place to hide something."""
    if not isinstance(value, dict):
        raise RosterRefused(f"{what} is not a JSON object.")
    if missing := sorted(set(names) - set(value)):
        raise RosterRefused(f"{what} lacks {', '.join(missing)}.")
    if unknown := sorted(set(value) - set(names)):
        raise RosterRefused(
            f"{what} has members this version does not know: {', '.join(map(repr, unknown[:5]))}."
        )
    return value


def _text(value: JsonValue, what: str, *, longest: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > longest or _CONTROL.search(value):
        raise RosterRefused(f"{what} is not a plain text of 1 to {longest} characters.")
    return value


def _optional_text(value: JsonValue, what: str) -> str | None:
    return None if value is None else _text(value, what)


def _list(value: JsonValue, what: str, *, longest: int) -> list[JsonValue]:
    if not isinstance(value, list) or len(value) > longest:
        raise RosterRefused(f"{what} is not a list of at most {longest} entries.")
    return value


def _code(value: JsonValue, what: str) -> str:
    if not isinstance(value, str) or not _CODE.fullmatch(value):
        raise RosterRefused(f"{what} is not a State's two-letter code in capitals.")
    return value


def _integer(value: JsonValue, what: str, *, lowest: int, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise RosterRefused(f"{what} is not a whole number between {lowest} and {highest}.")
    return value


def _date(value: JsonValue, what: str) -> str:
    if isinstance(value, str) and len(value) == len("2023-03-30"):
        try:
            date.fromisoformat(value)
        except ValueError:
            pass
        else:
            return value
    raise RosterRefused(f"{what} is not a date like 2023-03-30.")


def _choice(value: JsonValue, choices: tuple[str, ...], what: str) -> str:
    if value not in choices or not isinstance(value, str):
        raise RosterRefused(f"{what} is not one of {', '.join(choices)}.")
    return value


def _url(value: JsonValue, what: str) -> str:
    """A base URL: scheme, host, optional path; no slash at the end, nothing that hides another destination."""
    text = _text(value, what)
    try:
        parts = urlsplit(text)
        valid = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.username is None
            and parts.password is None
            and not parts.query
            and not parts.fragment
            and "?" not in text
            and "#" not in text
            and "\\" not in text
            and text.isascii()
            and not text.endswith("/")
            and " " not in text
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        valid = False
    if not valid:
        raise RosterRefused(
            f"{what} is not a base URL like https://node.example (no query, no slash at the end)."
        )
    return text


@lru_cache(maxsize=8192)
def admit(alg: str, public: str, *, encryption: bool = False) -> PublicKey:
    """Admit a key from base64url. Cached: admission is pure and takes a millisecond, and rosters repeat their keys.

    Raises:
        UnacceptableKey
    """
    try:
        return PublicKey.from_text(alg, public, encryption=encryption)
    except NonCanonicalEncoding as error:
        raise UnacceptableKey(f"The public key is not canonical base64url. {error}") from error


# ── the State document ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StateKey:
    """A key as its State lists it: the roster's view of it and the proof that it was held."""

    entry: RosterKey
    proof: bytes = field(repr=False)

    def to_json(self) -> dict[str, JsonValue]:
        """The key's members in a State document."""
        entry = self.entry
        return {
            "kid": entry.kid,
            "use": entry.use,
            "alg": entry.key.alg,
            "public": entry.key.text(),
            "from": entry.active_from,
            "to": entry.active_to,
            "revoked_at_index": entry.revoked_at_index,
            "suspect_from": entry.suspect_from,
            "proof": b64u_encode(self.proof),
        }

    @classmethod
    def of_card(cls, card: KeyCard, *, active_from: int, active_to: int | None = None) -> StateKey:
        """List the key of a card.

        Raises:
            RosterRefused: the card is for a key that signs the roster itself.
        """
        use = next((u for u in KEY_USES if u == card.use), None)
        if use is None:
            raise RosterRefused(f"Key {card.kid} is for {card.use}; it is not listed in a State document.")
        return cls(RosterKey(card.kid, use, card.key, active_from, active_to), card.proof)


@dataclass(frozen=True, slots=True)
class StateDocument:
    """What one State says of itself. Made by `parse` from outside bytes, or by our own tools and then parsed again."""

    state: str
    url: str | None = None
    contact_point: ContactPoint | None = None
    logs: tuple[RosterLog, ...] = ()
    keys: tuple[StateKey, ...] = ()
    witness_name: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """The document's members."""
        contact = self.contact_point
        return {
            "type": "verbale-state",
            "v": 1,
            "state": self.state,
            "url": self.url,
            "contact_point": contact
            and {
                "office": contact.office,
                "email": contact.email,
                "phone": contact.phone,
                "languages": list(contact.languages),
                "hours": contact.hours,
            },
            "logs": [
                {"origin": log.origin, "epoch": log.epoch, "url": log.url, "status": log.status}
                for log in self.logs
            ],
            "keys": [key.to_json() for key in self.keys],
            "witness_name": self.witness_name,
        }

    def to_bytes(self) -> bytes:
        """The document as it is hashed and signed: RFC 8785."""
        return canonical(self.to_json())

    @classmethod
    def parse(cls, raw: bytes, *, state: str | None = None, strict: bool = True) -> StateDocument:
        """Read and judge a State document.

        `state` is the State that may speak here, when known. `strict` asks for canonical bytes (RFC 8785), as a published
        document has them; a person's draft may be spaced as they like.

        Raises:
            RosterRefused: anything in it that may not be said.
            UnacceptableKey: a key that was not admitted or whose proof fails.
            MalformedJson: not JSON.
        """
        value = parse_strict(raw)
        if strict and canonical(value) != raw:
            raise RosterRefused(
                "The State document is not canonical JSON (RFC 8785). Publish it with `verbale roster`."
            )
        names = ("type", "v", "state", "url", "contact_point", "logs", "keys", "witness_name")
        members = _members(value, names, "The State document")
        if members["type"] != "verbale-state" or members["v"] != 1 or isinstance(members["v"], bool):
            raise RosterRefused("This is not a State document of version 1 (type verbale-state, v 1).")
        code = _code(members["state"], "The State document's state")
        if state is not None and code != state:
            raise RosterRefused(
                f"A State speaks only for itself: this document says {code}, its role is {state}'s."
            )
        logs = tuple(_log(entry, code) for entry in _list(members["logs"], f"{code}: logs", longest=MAX_LOGS))
        keys = tuple(
            _state_key(entry, code) for entry in _list(members["keys"], f"{code}: keys", longest=MAX_KEYS)
        )
        document = cls(
            state=code,
            url=None if members["url"] is None else _url(members["url"], f"{code}: url"),
            contact_point=_contact_point(members["contact_point"], code),
            logs=logs,
            keys=keys,
            witness_name=_witness_name(members["witness_name"], code),
        )
        document.check()
        return document

    def check(self) -> None:
        """The rules within one document: unique ids, and a node has what a node needs.

        Raises:
            RosterRefused
        """
        _unique((key.entry.kid for key in self.keys), f"{self.state}: the key id {{}} is listed twice.")
        _unique((log.origin for log in self.logs), f"{self.state}: the origin {{}} is listed twice.")
        _unique((log.epoch for log in self.logs), f"{self.state}: the log epoch {{}} is listed twice.")
        if len([log for log in self.logs if log.status == "active"]) > 1:
            raise RosterRefused(f"{self.state}: more than one log is active. Close the old one first.")
        if self.logs and self.url is None:
            raise RosterRefused(f"{self.state}: a State with a log gives the base URL of its node.")
        if any(log.status == "active" for log in self.logs) and not any(
            k.entry.use == "log" for k in self.keys
        ):
            raise RosterRefused(f"{self.state}: an active log needs a listed key for log.")
        if any(k.entry.use == "witness" for k in self.keys) and self.witness_name is None:
            raise RosterRefused(f"{self.state}: a witness key needs a witness_name.")


def _log(value: JsonValue, code: str) -> RosterLog:
    members = _members(value, ("origin", "epoch", "url", "status"), f"{code}: a log")
    origin = _text(members["origin"], f"{code}: a log's origin", longest=253)
    match = _ORIGIN.fullmatch(origin)
    epoch = _integer(members["epoch"], f"{code}: a log's epoch", lowest=1, highest=999_999)
    if match is None or int(match[3]) != epoch:
        raise RosterRefused(f"{code}: the origin {origin!r} is not <host>/log/{epoch}.")
    choices: tuple[LogStatus, ...] = get_args(LogStatus)
    status = _choice(members["status"], choices, f"{code}: a log's status")
    url = _url(members["url"], f"{code}: a log's url")
    return RosterLog(origin, epoch, url, next(choice for choice in choices if choice == status))


def _state_key(value: JsonValue, code: str) -> StateKey:
    names = ("kid", "use", "alg", "public", "from", "to", "revoked_at_index", "suspect_from", "proof")
    members = _members(value, names, f"{code}: a key")
    kid = _text(members["kid"], f"{code}: a key id", longest=40)
    use = next((known for known in KEY_USES if known == members["use"]), None)
    if use is None:
        raise RosterRefused(f"{code}: key {kid} has an unknown use. Use one of: {', '.join(KEY_USES)}.")
    try:
        owner = state_of_kid(kid, use)
    except Malformed as error:
        raise RosterRefused(f"{code}: {error}") from error
    if owner != code:
        raise RosterRefused(f"A State lists only its own keys: {kid} stands in the document of {code}.")
    try:
        encryption = use == "encryption"
        key = admit(
            _text(members["alg"], f"{kid}: alg"),
            _text(members["public"], f"{kid}: public", longest=MAX_PUBLIC_TEXT),
            encryption=encryption,
        )
        # An encryption key signs nothing: its proof is the empty text, which `check_possession` asks for.
        proof = (
            b""
            if encryption and members["proof"] == ""
            else b64u_decode(_text(members["proof"], f"{kid}: proof"))
        )
        check_possession(kid, use, code, key, proof)
    except UnacceptableKey as error:
        raise UnacceptableKey(f"Key {kid}: {error}") from error
    except NonCanonicalEncoding as error:
        raise UnacceptableKey(f"Key {kid}: the proof of possession is not canonical base64url.") from error
    start = _integer(members["from"], f"{kid}: from", lowest=EARLIEST, highest=LATEST)
    end = members["to"]
    if end is not None:
        end = _integer(end, f"{kid}: to", lowest=start + 1, highest=LATEST)
    revoked = members["revoked_at_index"]
    if revoked is not None:
        revoked = _integer(revoked, f"{kid}: revoked_at_index", lowest=0, highest=MAX_TREE_SIZE)
    suspect = members["suspect_from"]
    if suspect is not None:
        suspect = _integer(suspect, f"{kid}: suspect_from", lowest=EARLIEST, highest=LATEST)
    return StateKey(RosterKey(kid, use, key, start, end, revoked, suspect), proof)


def _contact_point(value: JsonValue, code: str) -> ContactPoint | None:
    if value is None:
        return None
    what = f"{code}: contact_point"
    members = _members(value, ("office", "email", "phone", "languages", "hours"), what)
    email = _text(members["email"], f"{what}.email")
    if not _EMAIL.fullmatch(email):
        raise RosterRefused(f"{what}.email is not an address.")
    languages = []
    for language in _list(members["languages"], f"{what}.languages", longest=20):
        if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
            raise RosterRefused(f"{what}.languages holds something that is not a language tag like en.")
        languages.append(language)
    return ContactPoint(
        office=_text(members["office"], f"{what}.office"),
        email=email,
        phone=_optional_text(members["phone"], f"{what}.phone"),
        languages=tuple(languages),
        hours=_optional_text(members["hours"], f"{what}.hours"),
    )


def _witness_name(value: JsonValue, code: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _WITNESS.fullmatch(value):
        raise RosterRefused(
            f"{code}: witness_name is not a name like node.example/witness (no spaces, no plus sign)."
        )
    return value


def _unique(values: Iterable[object], sentence: str) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise RosterRefused(sentence.format(value))
        seen.add(value)


# ── the federation document ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Membership:
    """One Subscribing State as the federation knows it, with or without a node.

    Attributes:
        joined: a date, or a year alone.
        ends: of a State that is no member: each of its logs with the first index that does not count.
        left: of a State that is no member: the first day of which its witness vouches for nothing; None in a document of
            an earlier version: for no day at all.
    """

    code: str
    name: str
    joined: str
    status: MembershipStatus = "member"
    ends: tuple[tuple[str, int], ...] = ()
    left: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """The State's members; `ends` and `left` exactly if it is no member."""
        said: dict[str, JsonValue] = {
            "code": self.code,
            "name": self.name,
            "status": self.status,
            "joined": self.joined,
        }
        if self.status != "member":
            said["ends"] = [{"origin": origin, "index": index} for origin, index in self.ends]
            if self.left is not None:
                said["left"] = self.left
        return said


@dataclass(frozen=True, slots=True)
class FrozenLog:
    """A log that the threshold of States has frozen, whatever its own State says of it.

    Attributes:
        size, root: where the States have ended it; both None while that is not agreed. An end is final.
    """

    origin: str
    since: str
    reason: str
    size: int | None = None
    root: bytes | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """The log's members; `size` and `root` exactly if it is ended."""
        said: dict[str, JsonValue] = {"origin": self.origin, "since": self.since, "reason": self.reason}
        if self.size is not None and self.root is not None:
            said |= {"size": self.size, "root": b64u_encode(self.root)}
        return said


@dataclass(frozen=True, slots=True)
class FederationDocument:
    """What the threshold of States says: membership, terms, frozen logs."""

    name: str
    states: tuple[Membership, ...]
    terms: tuple[CentralContactTerm, ...] = ()
    frozen: tuple[FrozenLog, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        """The document's members."""
        return {
            "type": "verbale-federation",
            "v": 1,
            "name": self.name,
            "quorum": QUORUM_RULE,
            "states": [state.to_json() for state in self.states],
            "central_contact": [
                {"state": t.state, "start": t.start, "end": t.end, "confirmed_by": list(t.confirmed_by)}
                for t in self.terms
            ],
            "frozen_logs": [frozen.to_json() for frozen in self.frozen],
        }

    def to_bytes(self) -> bytes:
        """The document as it is hashed and signed: RFC 8785."""
        return canonical(self.to_json())

    def member(self, code: str) -> Membership | None:
        """The State with that code, or None."""
        return next((state for state in self.states if state.code == code), None)

    @classmethod
    def parse(cls, raw: bytes) -> FederationDocument:
        """Read and judge the federation document.

        Raises:
            RosterRefused, MalformedJson
        """
        value = parse_strict(raw)
        if canonical(value) != raw:
            raise RosterRefused("The federation document is not canonical JSON (RFC 8785).")
        names = ("type", "v", "name", "quorum", "states", "central_contact", "frozen_logs")
        members = _members(value, names, "The federation document")
        if members["type"] != "verbale-federation" or members["v"] != 1 or isinstance(members["v"], bool):
            raise RosterRefused(
                "This is not a federation document of version 1 (type verbale-federation, v 1)."
            )
        if members["quorum"] != QUORUM_RULE:
            raise RosterRefused(
                f"The quorum rule is not one this version knows ({QUORUM_RULE}). Update the node."
            )
        document = cls(
            name=_text(members["name"], "The federation's name"),
            states=tuple(_membership(entry) for entry in _list(members["states"], "states", longest=300)),
            terms=tuple(
                _term(entry) for entry in _list(members["central_contact"], "central_contact", longest=500)
            ),
            frozen=tuple(
                _frozen(entry) for entry in _list(members["frozen_logs"], "frozen_logs", longest=500)
            ),
        )
        document.check()
        return document

    def check(self) -> None:
        """The rules within the document.

        Raises:
            RosterRefused
        """
        if not self.states:
            raise RosterRefused("A federation has at least one State.")
        _unique((state.code for state in self.states), "The State {} is listed twice.")
        _unique((frozen.origin for frozen in self.frozen), "The frozen log {} is listed twice.")
        _unique(
            (origin for state in self.states for origin, _ in state.ends),
            "The end of the log {} is given twice.",
        )
        codes = {state.code for state in self.states}
        for earlier, later in zip(self.terms, self.terms[1:], strict=False):
            if earlier.end is None or later.start < earlier.end:
                raise RosterRefused(
                    f"The central-contact terms of {earlier.state} and {later.state} overlap or are out of order. End the "
                    "earlier term on the day the later one begins."
                )
        for term in self.terms:
            if term.end is not None and term.end <= term.start:
                raise RosterRefused(f"The central-contact term of {term.state} ends before it begins.")
            if unknown := sorted({term.state, *term.confirmed_by} - codes):
                raise RosterRefused(
                    f"A central-contact term names a State that is not listed: {', '.join(unknown)}."
                )


def _membership(value: JsonValue) -> Membership:
    over = isinstance(value, dict) and value.get("status") != "member"
    given = ("left",) if isinstance(value, dict) and over and "left" in value else ()
    names = ("code", "name", "status", "joined", *(("ends", *given) if over else ()))
    members = _members(value, names, "A State")
    code = _code(members["code"], "A State's code")
    joined = _text(members["joined"], f"{code}: joined")
    if not re.fullmatch(r"20[0-9]{2}", joined):  # a year alone, where the day was never published
        joined = _date(joined, f"{code}: joined")
    choices: tuple[MembershipStatus, ...] = get_args(MembershipStatus)
    status = _choice(members["status"], choices, f"{code}: status")
    name = _text(members["name"], f"{code}: name")
    ends = tuple(
        _end(entry, code) for entry in _list(members.get("ends", []), f"{code}: ends", longest=MAX_LOGS)
    )
    left = _date(members["left"], f"{code}: left") if given else None
    if left is not None and left < joined:
        raise RosterRefused(f"{code} left on {left}, before it joined.")
    return Membership(code, name, joined, next(choice for choice in choices if choice == status), ends, left)


def _end(value: JsonValue, code: str) -> tuple[str, int]:
    members = _members(value, ("origin", "index"), f"{code}: an end")
    origin = _text(members["origin"], f"{code}: an end's origin", longest=253)
    return origin, _integer(members["index"], f"{code}: the end of {origin}", lowest=0, highest=MAX_TREE_SIZE)


def _term(value: JsonValue) -> CentralContactTerm:
    members = _members(value, ("state", "start", "end", "confirmed_by"), "A central-contact term")
    state = _code(members["state"], "A central-contact term's state")
    start = _date(members["start"], f"The term of {state}: start")
    end = None if members["end"] is None else _date(members["end"], f"The term of {state}: end")
    confirmed = _list(members["confirmed_by"], f"The term of {state}: confirmed_by", longest=300)
    return CentralContactTerm(
        state, start, end, tuple(_code(code, f"The term of {state}: confirmed_by") for code in confirmed)
    )


def _frozen(value: JsonValue) -> FrozenLog:
    ended = isinstance(value, dict) and "size" in value
    names = ("origin", "since", "reason", *(("size", "root") if ended else ()))
    members = _members(value, names, "A frozen log")
    origin = _text(members["origin"], "A frozen log's origin", longest=253)
    if not _ORIGIN.fullmatch(origin):
        raise RosterRefused(f"The frozen log {origin!r} is not an origin.")
    size: int | None = None
    root: bytes | None = None
    if ended:
        size = _integer(members["size"], f"{origin}: size", lowest=0, highest=MAX_TREE_SIZE)
        try:
            root = b64u_decode(_text(members["root"], f"{origin}: root"))
        except NonCanonicalEncoding as error:
            raise RosterRefused(f"{origin}: root is not canonical base64url.") from error
        if len(root) != HASH_SIZE:
            raise RosterRefused(f"{origin}: root is not a hash of {HASH_SIZE} bytes.")
    return FrozenLog(
        origin,
        _date(members["since"], f"{origin}: since"),
        _text(members["reason"], f"{origin}: reason"),
        size,
        root,
    )


# ── several documents, several versions ───────────────────────────────────────────────────────────────────────────


def check_together(
    federation: FederationDocument, states: Mapping[str, StateDocument], roster_keys: Mapping[str, PublicKey]
) -> None:
    """The rules that concern all documents of one version.

    `roster_keys` are the keys that sign the roster itself (governance, authority, online), by key id.

    Raises:
        RosterRefused: a key used twice, an origin or witness name of two States, a State nobody knows.
    """
    owners: dict[bytes, str] = {}
    listed = [(kid, key) for kid, key in sorted(roster_keys.items())]
    listed += [(key.entry.kid, key.entry.key) for document in states.values() for key in document.keys]
    for kid, key in listed:
        other = owners.setdefault(key.raw, kid)
        if other != kid:
            raise RosterRefused(
                f"{kid} and {other} are the same key. Every State and every use has a key of its own."
            )
    origins: dict[str, str] = {}
    witnesses: dict[str, str] = {}
    for code, document in states.items():
        if federation.member(code) is None:
            raise RosterRefused(f"{code} has a document, but is not a State of this federation.")
        for log in document.logs:
            if origins.setdefault(log.origin, code) != code:
                raise RosterRefused(
                    f"The origin {log.origin} is claimed by {origins[log.origin]} and by {code}."
                )
        member = federation.member(code)
        origins_here = {log.origin for log in document.logs}
        if member is not None and (strange := sorted({origin for origin, _ in member.ends} - origins_here)):
            raise RosterRefused(f"{code} does not list the log whose end is given: {', '.join(strange)}.")
        name = document.witness_name
        if name is not None and witnesses.setdefault(name, code) != code:
            raise RosterRefused(f"The witness name {name} is claimed by {witnesses[name]} and by {code}.")


def check_succession(old: StateDocument, new: StateDocument) -> None:
    """What a State may not take back: the past must stay verifiable.

    Raises:
        RosterRefused: a key or log dropped or altered, a revocation withdrawn, a closed log opened.
    """
    keys = {key.entry.kid: key.entry for key in new.keys}
    for before in (key.entry for key in old.keys):
        after = keys.get(before.kid)
        if after is None:
            raise RosterRefused(
                f"Key {before.kid} is missing. Past keys stay listed, or what they signed could no longer be verified; end it "
                "with `to` or revoke it with `revoked_at_index`."
            )
        if (after.use, after.key, after.active_from) != (before.use, before.key, before.active_from):
            raise RosterRefused(
                f"Key {before.kid} was changed. A key id names one key for ever; list a new one."
            )
        if before.revoked_at_index is not None and (
            after.revoked_at_index is None or after.revoked_at_index > before.revoked_at_index
        ):
            raise RosterRefused(
                f"Key {before.kid} is revoked, and a revocation is not withdrawn. List a new key."
            )
    logs = {log.origin: log for log in new.logs}
    for log in old.logs:
        if log.origin not in logs:
            raise RosterRefused(f"The log {log.origin} is missing. Close it instead: it stays provable.")
        if log.status == "closed" and logs[log.origin].status != "closed":
            raise RosterRefused(f"The log {log.origin} is closed and stays so. Open a new epoch.")


def check_federation_succession(old: FederationDocument, new: FederationDocument) -> None:
    """What the States together may not take back either.

    Raises:
        RosterRefused: a State, an ended term or the end of a log dropped or changed.
    """
    ends = {log.origin: (log.size, log.root) for log in new.frozen}
    for log in old.frozen:
        if log.size is not None and ends.get(log.origin) != (log.size, log.root):
            raise RosterRefused(
                f"The end of the log {log.origin} at size {log.size} was dropped or changed. An end is final."
            )
    for state in old.states:
        if new.member(state.code) is None:
            raise RosterRefused(
                f"{state.code} is missing. A State that leaves is marked withdrawn: its log stays provable."
            )
    for term in old.terms:
        if term.end is not None and not any(
            (t.state, t.start, t.end) == (term.state, term.start, term.end) for t in new.terms
        ):
            raise RosterRefused(
                f"The ended central-contact term of {term.state} from {term.start} was dropped or changed."
            )


def build_roster(
    federation: FederationDocument,
    states: Mapping[str, StateDocument],
    *,
    version: int,
    sha256: str,
    expires: int,
    expiries: Mapping[str, int],
) -> Roster:
    """The pure view that the rest of the node reads."""
    frozen = {log.origin: log for log in federation.frozen}
    view: dict[str, RosterState] = {}
    for member in federation.states:
        state = RosterState(
            code=member.code,
            name=member.name,
            status=member.status,
            joined=member.joined,
            ends=member.ends,
            left=member.left,
        )
        document = states.get(member.code)
        if document is not None:
            state = replace(
                state,
                url=document.url,
                contact_point=document.contact_point,
                logs=tuple(
                    replace(
                        log, status="frozen", end=frozen[log.origin].size, end_root=frozen[log.origin].root
                    )
                    if log.origin in frozen
                    else log
                    for log in document.logs
                ),
                keys=tuple(key.entry for key in document.keys),
                witness_name=document.witness_name,
            )
        view[member.code] = state
    return Roster(
        version, sha256, expires, MappingProxyType(view), federation.terms, MappingProxyType(dict(expiries))
    )
