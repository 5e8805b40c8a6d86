"""Judging: the same rules for both doors.

A statement posted here and a leaf mirrored from a peer pass the same functions in the same order. They differ only in
what the caller does with a refusal: the local door answers it, the remote door flags the leaf and keeps it.

    parse ▸ log ▸ key ▸ signature ▸ times            judge_statement     (anybody can decide this)
    parts ▸ commitments ▸ schema ▸ issuer ▸ kind     judge_body          (decided by those who hold the body)
    id ▸ reference ▸ state machine                   lifecycle.advance   (anybody, in log order)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.domain import statement as statements
from app.domain.commitment import check_opening
from app.domain.encoding import b64u_decode
from app.domain.epochs import check_continuation
from app.domain.errors import (
    ImplausibleTime,
    IssuerMismatch,
    KindMismatch,
    LogEnded,
    NonCanonicalEncoding,
    NotAllowed,
    PartsMismatch,
    ReferenceMismatch,
    WrongKeyUse,
    WrongLog,
)
from app.domain.json import parse_strict
from app.domain.notices import KIND_OF_TYPE, Notice, parse_main

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.domain.roster import KeyUse, Roster, RosterKey, RosterState
    from app.domain.statement import Kind, Part, Statement

MAX_SKEW_S: Final = 300
"""A statement may claim to be this many seconds ahead of whoever judges it; clocks differ, and NTP's failures are larger."""

_USES: Final[dict[Kind, tuple[KeyUse, ...]]] = {
    "issue": ("notices",),
    "amend": ("notices",),
    "withdraw": ("notices",),
    "ack": ("notices",),
    "erase": ("notices", "node"),
    "roster": ("node",),
    "anchor": ("node",),
    "evidence": ("node",),
}


@dataclass(frozen=True, slots=True)
class VerifiedStatement:
    """A statement whose log, key, signature and times hold. Only `judge_statement` makes one.

    Attributes:
        issuer: the State whose log it is in and whose key signed it.
    """

    statement: Statement
    issuer: str


@dataclass(frozen=True, slots=True)
class VerifiedNotice:
    """A verified statement with all its parts opened. Only `judge_body` makes one; `notice` is None for system kinds."""

    verified: VerifiedStatement
    parts: Mapping[str, Part]
    notice: Notice | None


def judge_statement(
    leaf: bytes | Statement, *, origin: str, index: int | None, roster: Roster, at: int | None
) -> VerifiedStatement:
    """Judge one leaf without its body.

    Args:
        leaf: the exact bytes, or what `statement.parse` made of them.
        origin: the log it stands in or is to be appended to.
        index: where it stands; a revoked key counts only below its revocation index. None at the local door, where a
            revoked key never counts.
        at: unix seconds now, at the local door. None for a leaf that stands in a log: nodes see it at different times, and
            must all say the same of it. Its `iat` is held against the times of witnesses (`app.domain.times`).

    Does not check what the log said before: that is `lifecycle.advance`.

    Raises:
        MalformedStatement, WrongLog, UnknownKey, WrongKeyUse, KeyNotActive, InvalidSignature, ImplausibleTime: see each.
    """
    read = statements.parse(leaf) if isinstance(leaf, bytes) else leaf
    if read.log != origin:
        raise WrongLog(
            f"The statement was signed for the log {read.log}, not for {origin}. A statement counts in one log only."
        )
    state, key = check_key(read, roster=roster, index=index, at=at)
    key.key.verify(read.signature, read.signing_input)
    if at is not None and read.iat > at + MAX_SKEW_S:
        raise ImplausibleTime(
            f"iat is {read.iat - at} seconds in the future as this node's clock has it. Set the signer's clock and sign again."
        )
    if read.exp is not None and read.exp <= read.iat:
        raise ImplausibleTime("exp is not after iat: the statement would be over before it begins.")
    return VerifiedStatement(read, state.code)


def check_key(
    statement: Statement, *, roster: Roster, index: int | None, at: int | None
) -> tuple[RosterState, RosterKey]:
    """Check that the statement's key, and its State's membership, count for it at `index` in the log it names.

    At the local door (`index` None) the key must count now as well: a key that was ended signs nothing new, whatever time
    it claims, in the one place where its log can grow.

    Raises:
        UnknownKey, WrongKeyUse, KeyNotActive, NotAllowed, LogEnded.
    """
    state = roster.state_of_origin(statement.log)
    if state is None:
        raise NotAllowed(f"The roster (version {roster.version}) lists no log {statement.log}.")
    key = roster.require_key(state.code, statement.kid, _USES[statement.kind])
    if key.key.alg != statement.alg:
        raise WrongKeyUse(
            f"Key {statement.kid} is an {key.key.alg} key; the statement names {statement.alg}."
        )
    key.check_active(at=statement.iat, index=index)
    if index is None:
        key.check_active(at=max(at or 0, key.active_from), index=None)
        check_not_ended(statement.log, roster, None)
        return state, key
    end = state.end_of(statement.log)
    if end is not None and index >= end:
        raise NotAllowed(
            f"{state.code} is {state.status} in the roster: its leaves from index {end} on do not count."
        )
    check_not_ended(statement.log, roster, index)
    return state, key


def check_not_ended(origin: str, roster: Roster, index: int | None) -> None:
    """Check that the States have not ended the log at or below `index`; None: at all.

    Raises:
        LogEnded
    """
    listed = roster.log(origin)
    if listed is not None and listed.end is not None and (index is None or index >= listed.end):
        raise LogEnded(
            f"The States have ended the log {origin} at size {listed.end}, since it signed more than one history: what stands "
            "from there on is unproven. Its State says it again in its next epoch, if it stands by it."
        )


def check_not_expired(statement: Statement, *, at: int) -> None:
    """The local door's one rule more: do not log what is already over. For a mirrored leaf it is simply expired.

    Raises:
        ImplausibleTime: `exp` is not after `at`.
    """
    if statement.exp is not None and statement.exp <= at:
        raise ImplausibleTime("exp is in the past. Leave it out, or set it to when the notice shall end.")


def judge_body(verified: VerifiedStatement, parts: Mapping[str, Part]) -> VerifiedNotice:
    """Judge the opened parts of a verified statement.

    Raises:
        PartsMismatch: a part is missing or was not named by the statement.
        CommitmentMismatch: a part does not open its commitment.
        InvalidNotice, UnknownNoticeType, UnknownSchemaVersion, MalformedJson: the main part.
        IssuerMismatch, KindMismatch, ReferenceMismatch: the main part against the statement.
    """
    check_openings(verified.statement, parts)
    return VerifiedNotice(verified, parts, judge_main(verified, parts))


def judge_anchor(
    verified: VerifiedStatement, parts: Mapping[str, Part], *, roster: Roster, index: int
) -> None:
    """Judge what an anchor, standing or to stand at `index`, says that its log continues.

    Raises:
        ContinuationMismatch, MalformedJson: see `app.domain.epochs`.
    """
    statement = verified.statement
    before = roster.continued(statement.log) if index == 0 else None
    check_continuation(parts[statements.MAIN_PART].content, before)


def check_openings(statement: Statement, parts: Mapping[str, Part]) -> None:
    """Check that exactly the named parts are there and each opens its commitment.

    Raises:
        PartsMismatch, CommitmentMismatch.
    """
    named = {p.name for p in statement.parts}
    if named != parts.keys():
        missing, extra = sorted(named - parts.keys()), sorted(parts.keys() - named)
        said = "; ".join(
            f"{what}: {', '.join(names)}"
            for what, names in (("missing", missing), ("not named", extra))
            if names
        )
        raise PartsMismatch(
            f"The parts are not those the statement names ({said}). Send each named part, and no other."
        )
    for part in statement.parts:
        opened = parts[part.name]
        check_opening(part.commitment, opened.salt, statement.id, part.name, opened.content)


def judge_main(verified: VerifiedStatement, parts: Mapping[str, Part]) -> Notice | None:
    """Judge an opened main part: schema, then coherence with its statement. None for kinds without a notice.

    Raises:
        See `judge_body`.
    """
    statement = verified.statement
    if not statement.parts:
        return None
    raw = parts[statements.MAIN_PART].content
    if statement.kind not in ("issue", "amend", "withdraw", "ack"):
        parse_strict(raw)
        return None
    notice = parse_main(raw)
    if notice.issuer != verified.issuer:
        raise IssuerMismatch(
            f"The notice names {notice.issuer} as issuer, and the log belongs to {verified.issuer}. A State speaks for itself only."
        )
    expected = KIND_OF_TYPE[notice.type]
    if expected != statement.kind:
        raise KindMismatch(
            f"A notice of type {notice.type} is carried by a statement of kind {expected}, not {statement.kind}."
        )
    _check_reference(statement, notice)
    _check_attachments(statement, notice)
    return notice


def _check_reference(statement: Statement, notice: Notice) -> None:
    """`ref` in the header and the reference in the body name the same leaf."""
    if statement.ref is None:
        return
    member = {"amend": "amends", "withdraw": "withdraws", "ack": "notice"}[statement.kind]
    try:
        named = b64u_decode(notice.document["body"][member]["hash"])
    except NonCanonicalEncoding:
        named = b""
    if named != statement.ref:
        raise ReferenceMismatch(
            f"body.{member}.hash and the statement's ref name different versions. They must be the same hash."
        )


def _check_attachments(statement: Statement, notice: Notice) -> None:
    listed = {a["part"] for a in notice.document.get("attachments", ())}
    named = {p.name for p in statement.parts} - {statements.MAIN_PART}
    if listed != named:
        odd = ", ".join(sorted(listed ^ named))
        raise PartsMismatch(
            f"The notice's attachments and the statement's parts differ: {odd}. List each committed part once."
        )
