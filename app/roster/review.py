"""A draft as a person reads it before signing: what is new, what goes, what changes, who has signed.

Guarantees: every fact a draft can change has a line here; both sides are rendered by the same code from what would be
published, never from what the proposer says about it. Leaves the judging of signatures to the ceremony.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tuf.api.metadata import Root, Targets

from app.domain.json import JsonValue
from app.domain.keys import PublicKey
from app.keyfiles import fingerprint
from app.roster import layout
from app.roster.ceremony import Draft, Signatures, check_draft, signature_status
from app.roster.documents import FederationDocument, StateDocument
from app.roster.verify import delegation_cards, role_cards

Facts = dict[str, str]
"""What a roster says, one line a fact: what it is about → what is said."""


def day(at: int | None) -> str:
    """A time as reviewers read it; `open` for none."""
    return "open" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def spoken(key: PublicKey) -> str:
    """A fingerprint's first 16 bytes in groups of four digits: short enough to compare over the telephone."""
    digits = fingerprint(key)[:32]
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def facts(
    root: Root, targets: Targets, federation: FederationDocument, states: dict[str, StateDocument]
) -> Facts:
    """Everything these four say."""
    said: Facts = {"Federation": federation.name}
    said |= _root_facts(root)
    for role, cards in delegation_cards(targets.delegations).items():
        for card in cards.values():
            said[f"State {layout.code_of_role(role)}: authority key {card.kid}"] = (
                f"{card.key.alg}, {spoken(card.key)}"
            )
    for member in federation.states:
        over = "".join(f", {origin} counts below index {index}" for origin, index in member.ends)
        left = "" if member.left is None else f", left {member.left}"
        said[f"State {member.code}"] = f"{member.name}, {member.status}, joined {member.joined}{left}{over}"
    for term in federation.terms:
        by = f", confirmed by {', '.join(term.confirmed_by)}" if term.confirmed_by else ""
        said[f"Central contact {term.state} from {term.start}"] = f"until {term.end or 'open'}{by}"
    for log in federation.frozen:
        end = (
            ""
            if log.size is None or log.root is None
            else f"; ended at size {log.size}, root {log.root.hex()[:16]}…"
        )
        said[f"Frozen log {log.origin}"] = f"since {log.since}: {log.reason}{end}"
    for code, document in sorted(states.items()):
        said |= _state_facts(code, document)
    return said


def _root_facts(root: Root) -> Facts:
    said: Facts = {}
    cards = role_cards(root)
    for role, kind in (("root", "Governance"), ("timestamp", "Online")):
        said[f"{kind} threshold"] = f"{root.roles[role].threshold} of {len(cards[role])}"
        for card in cards[role].values():
            said[f"{kind} key {card.kid}"] = f"{card.key.alg}, {spoken(card.key)}"
    return said


def _state_facts(code: str, document: StateDocument) -> Facts:
    said: Facts = {}
    if document.url:
        said[f"State {code}: node"] = document.url
    if document.witness_name:
        said[f"State {code}: witness name"] = document.witness_name
    if contact := document.contact_point:
        extra = [t for t in (contact.phone, ", ".join(contact.languages), contact.hours) if t]
        said[f"State {code}: contact point"] = "; ".join([contact.office, contact.email, *extra])
    for log in document.logs:
        said[f"State {code}: log {log.origin}"] = f"epoch {log.epoch}, {log.status}, {log.url}"
    for entry in (key.entry for key in document.keys):
        text = f"{entry.use}, {entry.key.alg}, from {day(entry.active_from)} to {day(entry.active_to)}"
        if entry.revoked_at_index is not None:
            text += f", REVOKED at index {entry.revoked_at_index}"
        if entry.suspect_from is not None:
            text += f", suspect from {day(entry.suspect_from)}"
        said[f"State {code}: key {entry.kid}"] = f"{text}, {spoken(entry.key)}"
    return said


def difference(old: Facts, new: Facts) -> tuple[str, ...]:
    """Lines `+ …`, `- …` and `~ …`, in the order of their subjects."""
    lines = []
    for subject in sorted({*old, *new}):
        before, after = old.get(subject), new.get(subject)
        if before is None:
            lines.append(f"+ {subject}: {after}")
        elif after is None:
            lines.append(f"- {subject}: {before}")
        elif before != after:
            lines.append(f"~ {subject}: {before} → {after}")
    return tuple(lines)


@dataclass(frozen=True, slots=True)
class Review:
    """What a draft changes and how far its signing is.

    Attributes:
        lines: the difference in content.
        renewals: one line for each metadata file the draft would publish.
        signatures: as `signature_status`.
        warnings: what is allowed and deserves a second look.
    """

    draft: str
    lines: tuple[str, ...]
    renewals: tuple[str, ...]
    signatures: tuple[Signatures, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> JsonValue:
        """For `--json`."""
        return {
            "draft": self.draft,
            "changes": list(self.lines),
            "files": list(self.renewals),
            "warnings": list(self.warnings),
            "signatures": [
                {
                    "role": s.role,
                    "version": s.version,
                    "threshold": s.threshold,
                    "signed": list(s.signed),
                    "missing": list(s.missing),
                    "needed": s.needed,
                }
                for s in self.signatures
            ],
        }


def review(draft: Draft) -> Review:
    """Render a draft. An inadmissible one is refused rather than rendered: nobody should have to notice by eye.

    Raises:
        As `app.roster.ceremony.check_draft`.
    """
    check_draft(draft)
    base = draft.base
    old = facts(base.root, base.targets, base.federation, dict(base.states)) if base else {}
    new = facts(draft.root, draft.targets, draft.federation, draft.states)
    renewals = []
    for role, metadata in (*draft.content.items(), *draft.sealed.items()):
        signed = metadata.signed
        renewals.append(
            f"{role} version {signed.version}, counts until {day(layout.seconds(signed.expires))}"
        )
    if draft.refresh and not draft.sealed:
        renewals.append(f"{draft.refresh} refreshed, nothing else")
    return Review(
        draft.name, difference(old, new), tuple(renewals), signature_status(draft), _warnings(draft)
    )


def _voided_witnesses(states: Mapping[str, StateDocument]) -> frozenset[str]:
    """Witness keys of which no cosignature counts: revoked, and nobody says since when."""
    entries = (
        key.entry for document in states.values() for key in document.keys if key.entry.use == "witness"
    )
    return frozenset(e.kid for e in entries if e.revoked_at_index is not None and e.suspect_from is None)


def _warnings(draft: Draft) -> tuple[str, ...]:
    lines = []
    if len(draft.root.roles["timestamp"].keyids) == 1:
        lines.append("One online key alone signs snapshot and timestamp: for a demonstration only.")
    was = _voided_witnesses(draft.base.states) if draft.base else frozenset()
    lines.extend(
        f"{kid} is revoked without a time (suspect_from): nothing that it ever cosigned tells the time of a notice."
        for kid in sorted(_voided_witnesses(draft.states) - was)
    )
    local = ("http://127.", "http://localhost", "http://[::1]")
    for code, document in sorted(draft.states.items()):
        urls = sorted({document.url or "", *(log.url for log in document.logs)})
        lines.extend(
            f"State {code}: {url} is not encrypted."
            for url in urls
            if url.startswith("http://") and not url.startswith(local)
        )
    return tuple(lines)
