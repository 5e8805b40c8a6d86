"""One screening, answered: parties, hits, the undercut check, whom to consult by when, and what the answer rests on.

    answer = Answering(finder, roster, state, contact …).answer(session, principal, application, options, now_ms=…)
    answer.wire()

Guarantees that every party is answered by hits, by the reason why there are none, or by what was not understood in it; and
that everything about a notice was read through the gate, in one snapshot. Writes nothing and sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from app.domain.encoding import b64u_encode
from app.domain.errors import InvalidFilter
from app.queries.filters import day_of
from app.queries.notices import rfc3339
from app.screening.application import Application, Asked, NotUnderstood
from app.screening.deadlines import Deadline, answer_due
from app.screening.denials import DenialView, Key, at_codes, load
from app.screening.draft import Denial, Draft, consultation_request
from app.screening.site import same_site
from app.screening.undercut import SAME_PARTY_ROLES, Comparison, Finding, PartyMatch, check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.domain.roster import ContactPoint
    from app.gate import Principal
    from app.screening.explain import Explanation
    from app.screening.freshness import Freshness

DEFAULT_LIMIT: Final = 5
MAX_LIMIT: Final = 100
"""Hits shown of one party."""
FORESEEN: Final = 16
"""Parties that are searched for together, as far as they can be."""
COMPARED: Final = 200
"""Hits of an end-user or consignee whose transactions are compared, however few are shown."""

_GRAVEST: Final = ("essentially_identical", "possibly_identical", "same_site_other_name", "other_items")


@dataclass(frozen=True, slots=True)
class Options:
    """How a caller wants to be answered.

    Attributes:
        limit: hits shown of one party, 1 to MAX_LIMIT.
        threshold: least score of a hit, 0 to 1; None is the one shipped.
        comparison: how strictly transactions are compared.
    """

    limit: int = DEFAULT_LIMIT
    threshold: float | None = None
    comparison: Comparison = field(default_factory=Comparison)

    @classmethod
    def of(
        cls, *, limit: int, threshold: float | None, depth: str | None, tolerance: float | None
    ) -> Options:
        """Read query parameters.

        Raises:
            InvalidFilter: a limit or threshold out of range.
            InvalidComparison: see `Comparison.of`.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidFilter(f"limit is a whole number from 1 to {MAX_LIMIT}.")
        if threshold is not None and not 0 <= threshold <= 1:
            raise InvalidFilter("threshold is a score, from 0 to 1.")
        default = Comparison()
        return cls(
            limit,
            threshold,
            Comparison.of(depth or default.depth, default.tolerance if tolerance is None else tolerance),
        )


# ── what finds ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Match:
    """A party of a notice that the party asked about may be.

    Attributes:
        position: of the party in the notice.
        why: told of those that are shown.
        basis: what it rests on.
    """

    key: Key
    position: int
    score: float
    why: Explanation
    basis: Literal["name", "identifier"] = "name"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one party, best first.

    Attributes:
        more: there are further ones at or above the threshold.
        threshold: that was applied.
        nearest: best score below the threshold that the caller may know of; None: nothing came near.
    """

    matches: tuple[Match, ...]
    more: bool
    threshold: float
    nearest: float | None = None
    notes: tuple[str, ...] = ()


class Finder(Protocol):
    """Finds parties. It shows nobody what the gate hides."""

    def find(
        self,
        principal: Principal,
        asked: Asked,
        *,
        limit: int,
        threshold: float | None,
        now_ms: int,
        ended: bool = False,
        session: Session | None = None,
    ) -> Found:
        """The parties of notices that one party may be: of those valid now, or with `ended` of those that ended too.

        Args:
            session: the snapshot to answer from; None takes a new one.
        """
        ...

    def foresee(self, principal: Principal, parties: Sequence[Asked], session: Session) -> None:
        """What is told before several calls of `find` in one snapshot, so that they can share work. It changes no answer."""
        ...

    def algorithm(self) -> Mapping[str, Any]:
        """Name, version and shipped threshold, for the record."""
        ...


# ── the answer ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PartyAnswer:
    """What is answered about one party."""

    asked: Asked
    found: Found
    hits: tuple[tuple[Match, DenialView], ...]

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        answer: dict[str, Any] = {
            "pointer": self.asked.pointer,
            "id": self.asked.id,
            "role": self.asked.role,
            "status": 200,
            "query": {
                "schema": self.asked.schema,
                "properties": {name: list(values) for name, values in self.asked.properties.items()},
            },
            "threshold": self.found.threshold,
            "hits": [_hit(match, view) for match, view in self.hits],
            "more": self.found.more,
            "notes": list(self.found.notes),
        }
        if not self.hits:
            answer["no_hit"] = self._no_hit()
        return answer

    def _no_hit(self) -> dict[str, Any]:
        if self.found.nearest is None:
            return {
                "reason": "nothing-similar",
                "detail": "No party of a notice that this caller may see shares enough of a name, or an identifier.",
            }
        nearest = round(self.found.nearest, 4)
        return {
            "reason": "below-threshold",
            "nearest": nearest,
            "detail": f"The nearest party scores {nearest}; a hit has at least {self.found.threshold}.",
        }


def _hit(match: Match, view: DenialView) -> dict[str, Any]:
    return {
        "score": round(match.score, 4),
        "notice": view.wire(),
        "party": party_wire(view, match.position),
        "explanation": match.why.to_json(),
    }


def party_wire(view: DenialView, position: int) -> dict[str, Any]:
    """A party of a notice, for the API."""
    party = view.parties()[position]
    return {
        "position": position,
        "role": party["role"],
        "schema": party["ftm"]["schema"],
        "properties": party["ftm"]["properties"],
        "native_names": party.get("native_names", []),
    }


@dataclass(frozen=True, slots=True)
class Consultation:
    """A State to be asked, by when it has to answer, and the request drafted."""

    state: str
    denials: tuple[DenialView, ...]
    deadline: Deadline
    draft: Draft

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {
            "state": self.state,
            "denials": [{"id": d.id, "hash": b64u_encode(d.leaf_hash)} for d in self.denials],
            "deadline": self.deadline.wire(),
            "draft": self.draft.wire(),
        }


@dataclass(frozen=True, slots=True)
class Undercut:
    """What the comparison with denied transactions gave.

    Attributes:
        own: denials of this State itself among the findings: nobody has to be consulted, and they are seen.
        limits: what was not looked at, in words.
    """

    findings: tuple[tuple[DenialView, Finding], ...]
    consultations: tuple[Consultation, ...]
    limits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One screening."""

    application: Application
    parties: tuple[PartyAnswer | NotUnderstood, ...]
    undercut: Undercut | None
    freshness: Freshness
    options: Options
    algorithm: Mapping[str, Any]
    at_ms: int

    @property
    def complete(self) -> bool:
        """Whether nothing was left out: every party understood, everything compared, every State's log in step."""
        understood = all(isinstance(party, PartyAnswer) for party in self.parties)
        compared = self.undercut is None or not self.undercut.limits
        return understood and compared and not self.freshness.behind

    def refs(self) -> list[tuple[int, int, int, int, float, str | None]]:
        """What was found, as numbers: (party, log, notice, position, score, verdict)."""
        verdicts = (
            {view.key: finding.verdict for view, finding in self.undercut.findings} if self.undercut else {}
        )
        return [
            (n, *match.key, match.position, round(match.score, 4), verdicts.get(match.key))
            for n, party in enumerate(self.parties)
            if isinstance(party, PartyAnswer)
            for match, _ in party.hits
        ]

    def wire(self, *, every_state: bool = True) -> dict[str, Any]:
        """The JSON object of the API.

        Args:
            every_state: with the freshness of each State; a line of a batch carries only what is missing.
        """
        answer: dict[str, Any] = {
            "id": self.application.id,
            "screened_at": rfc3339(self.at_ms),
            "complete": self.complete,
            "parties": [_party(party) for party in self.parties],
            "freshness": self.freshness.wire(every=every_state),
            "algorithm": dict(self.algorithm),
        }
        if self.undercut is not None:
            comparison = self.options.comparison
            answer["undercut"] = {
                "depth": comparison.depth,
                "tolerance": float(comparison.tolerance),
                "findings": [
                    {"notice": view.wire(), **finding.wire()} for view, finding in self.undercut.findings
                ],
                "limits": list(self.undercut.limits),
            }
            answer["consult"] = [consultation.wire() for consultation in self.undercut.consultations]
        return answer


def _party(party: PartyAnswer | NotUnderstood) -> dict[str, Any]:
    if isinstance(party, PartyAnswer):
        return party.wire()
    return {
        "pointer": party.pointer,
        "id": party.id,
        "role": party.role,
        "status": 422,
        "problem": {
            "code": party.code,
            "detail": "This party was not understood, so it was not screened.",
            "errors": [{"pointer": pointer, "detail": detail} for pointer, detail in party.errors],
        },
    }


@dataclass(frozen=True, slots=True)
class Answering:
    """Answers screenings for one State's node.

    Attributes:
        state: the State that runs the node.
        contact: its contact point, named in drafts.
    """

    finder: Finder
    state: str
    contact: ContactPoint | None

    def foresee(
        self, session: Session, principal: Principal, parties: Sequence[Asked | NotUnderstood]
    ) -> None:
        """Share work between some parties that are answered next in this snapshot."""
        asked = [party for party in parties if isinstance(party, Asked)]
        if len(asked) > 1:
            self.finder.foresee(principal, asked, session)

    def answer(
        self,
        session: Session,
        principal: Principal,
        application: Application,
        options: Options,
        freshness: Freshness,
        *,
        now_ms: int,
    ) -> Answer:
        """Screen what is asked.

        Args:
            session: one snapshot; everything is read in it.
            now_ms: unix ms.
        """
        found: list[tuple[Asked, Found] | NotUnderstood] = []
        for at, party in enumerate(application.parties):
            if at % FORESEEN == 0:
                self.foresee(session, principal, application.parties[at : at + FORESEEN])
            if isinstance(party, NotUnderstood):
                found.append(party)
                continue
            compares = application.is_application and (party.role or "") in SAME_PARTY_ROLES
            limit = max(options.limit, COMPARED) if compares else options.limit
            found.append(
                (
                    party,
                    self.finder.find(
                        principal,
                        party,
                        limit=limit,
                        threshold=options.threshold,
                        now_ms=now_ms,
                        ended=compares,
                        session=session,
                    ),
                )
            )
        keys = {match.key for each in found if isinstance(each, tuple) for match in each[1].matches}
        views = load(session, principal, keys, now_ms=now_ms)
        answers = tuple(
            each if isinstance(each, NotUnderstood) else _answered(each[0], each[1], views, options.limit)
            for each in found
        )
        undercut = None
        if application.is_application:
            asked = [each for each in found if isinstance(each, tuple)]
            undercut = self._undercut(session, principal, application, asked, views, options, now_ms=now_ms)
        return Answer(application, answers, undercut, freshness, options, self.finder.algorithm(), now_ms)

    def _undercut(
        self,
        session: Session,
        principal: Principal,
        application: Application,
        found: Sequence[tuple[Asked, Found]],
        views: Mapping[Key, DenialView],
        options: Options,
        *,
        now_ms: int,
    ) -> Undercut:
        limits: list[str] = []
        if not application.goods:
            limits.append("The application states no items, so items were not compared.")
        if not any((asked.role or "") in SAME_PARTY_ROLES for asked, _ in found):
            limits.append(
                "The application names no end-user or consignee, so transactions were not compared."
            )
        for asked, finding in found:
            if finding.more and (asked.role or "") in SAME_PARTY_ROLES:
                limits.append(
                    f"{asked.pointer} has more than {len(finding.matches)} hits; the best of them were compared."
                )
        matches = _matches(found, views)
        sites, more = at_codes(session, principal, application.goods, now_ms=now_ms)
        if more:
            limits.append(
                f"More than {len(sites)} denials carry these codes; the addresses of the newest were compared."
            )
        all_views = dict(views) | {view.key: view for view in sites}
        for view in sites:
            matches.setdefault(view.key, []).extend(
                _at_one_site(application, view, matches.get(view.key, ()))
            )
        today = day_of(now_ms)
        findings: list[tuple[DenialView, Finding]] = []
        for key, of_denial in matches.items():
            denied = all_views[key].denied()
            outcome = denied and check(
                denied,
                of_denial,
                application.goods,
                destination=application.destination,
                today=today,
                comparison=options.comparison,
            )
            if outcome:
                findings.append((all_views[key], outcome))
        findings.sort(
            key=lambda each: (
                _GRAVEST.index(each[1].verdict),
                -max(p.score for p in each[1].parties),
                each[0].id,
            )
        )
        return Undercut(tuple(findings), self._consultations(application, findings, today), tuple(limits))

    def _consultations(
        self, application: Application, findings: Sequence[tuple[DenialView, Finding]], today: date
    ) -> tuple[Consultation, ...]:
        by_state: dict[str, list[DenialView]] = {}
        for view, finding in findings:
            if finding.asks_consultation and view.issuer != self.state:
                by_state.setdefault(view.issuer, []).append(view)
        return tuple(
            self._consultation(application, state, tuple(denials), today)
            for state, denials in sorted(by_state.items())
        )

    def _consultation(
        self, application: Application, state: str, denials: tuple[DenialView, ...], today: date
    ) -> Consultation:
        deadline = answer_due(state, today)
        draft = consultation_request(
            issuer=self.state,
            consulted=state,
            denials=[Denial(view.id, b64u_encode(view.leaf_hash)) for view in denials],
            parties=[asked.as_notice_party() for asked in application.asked()],
            items=application.items,
            destination=application.destination,
            stated_end_use=application.stated_end_use,
            due=deadline.due,
            contact=self.contact,
            reference=application.reference,
            received_on=application.received_on,
        )
        return Consultation(state, denials, deadline, draft)


def _answered(asked: Asked, found: Found, views: Mapping[Key, DenialView], limit: int) -> PartyAnswer:
    # What the index still has and the gate or the clock meanwhile hides is not there, nor counted.
    shown = [
        (match, views[match.key])
        for match in found.matches
        if match.key in views and views[match.key].valid_now
    ]
    more = found.more or len(shown) > limit
    return PartyAnswer(asked, replace(found, more=more), tuple(shown[:limit]))


def _matches(
    found: Sequence[tuple[Asked, Found]], views: Mapping[Key, DenialView]
) -> dict[Key, list[PartyMatch]]:
    matches: dict[Key, list[PartyMatch]] = {}
    for asked, each in found:
        for match in each.matches:
            view = views.get(match.key)
            if view is not None:
                matches.setdefault(match.key, []).append(
                    _party_match(asked, view, match.position, match.score, basis=match.basis)
                )
    return matches


def _party_match(
    asked: Asked,
    view: DenialView,
    position: int,
    score: float,
    *,
    basis: Literal["name", "identifier", "address"],
) -> PartyMatch:
    party = view.parties()[position]
    return PartyMatch(
        role=asked.role or "other_party",
        name=asked.caption,
        denied_role=party["role"],
        denied_name=party["ftm"]["properties"]["name"][0],
        score=score,
        basis=basis,
    )


def _at_one_site(application: Application, view: DenialView, known: Sequence[PartyMatch]) -> list[PartyMatch]:
    """Parties of the application at an address of the denial's, that no name led to."""
    named = {(match.name, match.denied_name) for match in known}
    found = []
    for asked in application.asked():
        for ours in asked.properties.get("address", ()):
            for position, party in enumerate(view.parties()):
                theirs = party["ftm"]["properties"].get("address", ())
                match = _party_match(asked, view, position, 0.0, basis="address")
                if (match.name, match.denied_name) not in named and any(same_site(ours, a) for a in theirs):
                    found.append(match)
    return found
