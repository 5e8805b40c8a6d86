"""The query language over notices: the parameters of `GET /v1/notices`, kept as JSON by subscriptions.

Guarantees that an unknown name or a value outside its vocabulary is refused, because a filter that is silently ignored
widens what is found; and that a filter is one value with one canonical form, which a cursor can be bound to.
Values of one parameter are alternatives, parameters narrow each other. Who may see what is left to `app.gate`.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import and_, bindparam, exists, false, not_, or_, select, true, tuple_

from app.domain import control_codes
from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import InvalidCursor, InvalidFilter, Malformed
from app.domain.handling import Tlp
from app.domain.names import fold, tokens
from app.domain.notices import KIND_OF_TYPE
from app.domain.statement import is_origin
from app.domain.states import STATES, country
from app.domain.vocabulary import CONCERNS
from app.gate import visible
from app.models import LogRow, NoticeRow, NoticeTermRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import ColumnElement

    from app.gate import Principal

MAX_WORDS: Final = 10
"""Words of one party or text query: each is a look-up of its own."""

MAX_ALTERNATIVES: Final = 50
"""Values of one parameter."""

MAX_LOOKBACK_YEARS: Final = 30

MAX_TERM: Final = 120
"""Longer name tokens are stored cut to this many characters, so a query's are cut too."""

RECALLED: Final = "recalled"
"""Content state, and status, of a notice whose newest version its issuer took away from this State: a former addressee is
shown that, and nothing of what it held."""

STATUSES: Final = ("active", "expired", "withdrawn", "erased", RECALLED, "all")

SHOWN: Final = ("current", "stale", "erased")
"""Content states a reader meets; the others have no content that this State may show, or none that is valid."""


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def day_of(now_ms: int) -> date:
    """The UTC date of a time."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).date()


def years_before(day: date, years: int) -> date:
    """The same date `years` earlier; the 29th of February becomes the 28th."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)


def is_active(now_ms: int) -> ColumnElement[bool]:
    """Valid now, as the reader's clock has it: not withdrawn, not past `exp`, not past `valid_until`."""
    return _active(now_ms // 1000, day_of(now_ms).isoformat())


def _active(second: Any, day: Any) -> ColumnElement[bool]:  # noqa: ANN401 - values, or where they are bound
    return and_(
        NoticeRow.status == "active",
        or_(NoticeRow.exp.is_(None), NoticeRow.exp > second),
        or_(NoticeRow.valid_until.is_(None), NoticeRow.valid_until >= day),
    )


def is_active_then() -> ColumnElement[bool]:
    """The same at the time that is bound when the statement is executed: see `then`."""
    return _active(bindparam("then_second"), bindparam("then_day"))


def then(now_ms: int) -> dict[str, int | str]:
    """Values for `is_active_then`."""
    return {"then_second": now_ms // 1000, "then_day": day_of(now_ms).isoformat()}


def _is_expired(now_ms: int) -> ColumnElement[bool]:
    return and_(
        NoticeRow.status == "active",
        or_(NoticeRow.exp <= now_ms // 1000, NoticeRow.valid_until < day_of(now_ms).isoformat()),
    )


def _has_status(statuses: Iterable[str], now_ms: int) -> ColumnElement[bool]:
    choices: dict[str, ColumnElement[bool]] = {
        "active": is_active(now_ms),
        "expired": _is_expired(now_ms),
        "withdrawn": NoticeRow.status == "withdrawn",
        "erased": NoticeRow.status == "erased",
        RECALLED: false(),  # see `NoticeFilter.conditions`: no row of the ones that are shown
        "all": true(),
    }
    return or_(false(), *(choices[s] for s in statuses))


def _moment(text: str) -> tuple[datetime, bool]:
    """A date (second value True) or an RFC 3339 time with its offset."""
    try:
        if len(text) == len("2026-01-31"):
            return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC), True
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidFilter(
            f"{text!r} is neither a date (2026-01-31) nor a time with its offset (2026-01-31T12:00:00Z)."
        )
    return moment, False


def _ms_from(text: str) -> int:
    return round(_moment(text)[0].timestamp() * 1000)


def _ms_until(text: str) -> int:
    """Exclusive end: a date includes its whole day."""
    moment, whole_day = _moment(text)
    try:
        return round((moment + timedelta(days=1 if whole_day else 0)).timestamp() * 1000)
    except OverflowError as error:
        raise InvalidFilter(f"{text!r} is too far in the future.") from error


def _whole_seconds(ms: int) -> int:
    """Rounded up: a second is at or after a moment exactly if it is at or after this."""
    return -(-ms // 1000)


# ── values: text in, canonical text out, or InvalidFilter ─────────────────────────────────────────────────────────


def _one_of(what: str, known: Iterable[str]) -> Callable[[str], str]:
    vocabulary = tuple(known)

    def read(text: str) -> str:
        if text not in vocabulary:
            raise InvalidFilter(f"{text!r} is no {what}. Use one of: {', '.join(vocabulary)}.")
        return text

    return read


def _state(text: str) -> str:
    if text.upper() not in STATES:
        raise InvalidFilter(
            f"{text!r} is no Subscribing State. Use an alpha-2 code such as EE; /v1/states lists them."
        )
    return text.upper()


def _tlp(text: str) -> str:
    # A plus in a query string means a blank; nobody who writes AMBER STRICT means anything else.
    label = text.upper().replace(" ", "+")
    return Tlp.parse(label if label.startswith("TLP:") else f"TLP:{label}").label


def _flag(text: str) -> str:
    if text not in ("true", "false"):
        raise InvalidFilter(f"{text!r} is neither true nor false.")
    return text


def _years(text: str) -> str:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_LOOKBACK_YEARS):
        raise InvalidFilter(
            f"lookback_years is a whole number from 1 to {MAX_LOOKBACK_YEARS}; 3 is what the regimes look back."
        )
    return str(int(text))


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise InvalidFilter(f"{text!r} is not a date such as 2026-01-31.") from error


def _from(text: str) -> str:
    _ms_from(text)
    return text


def _until(text: str) -> str:
    _ms_until(text)
    return text


def _origin(text: str) -> str:
    if not is_origin(text):
        raise InvalidFilter(f"{text!r} is not an origin such as ee.example/log/1.")
    return text


def _words(text: str) -> str:
    folded = fold(text)
    count = len(folded.split())
    if not 1 <= count <= MAX_WORDS:
        raise InvalidFilter(f"Give 1 to {MAX_WORDS} words with letters or digits; there are {count}.")
    return folded


# ── conditions ────────────────────────────────────────────────────────────────────────────────────────────────────


def _has_term(kind: str) -> Callable[[tuple[str, ...]], ColumnElement[bool]]:
    """One of the terms. As EXISTS: countries and codes are common, and a look-up for each row beats a long list of keys."""

    def condition(terms: tuple[str, ...]) -> ColumnElement[bool]:
        return or_(
            *(
                exists(
                    select(true()).where(
                        NoticeTermRow.kind == kind,
                        NoticeTermRow.term == term,
                        NoticeTermRow.log_id == NoticeRow.log_id,
                        NoticeTermRow.idx == NoticeRow.idx,
                    )
                )
                for term in terms
            )
        )

    return condition


def _has_party(queries: tuple[str, ...]) -> ColumnElement[bool]:
    return or_(*(_has_name(query) for query in queries))


def _has_name(query: str) -> ColumnElement[bool]:
    """All tokens of the query within one name. As IN, since names are rare; the longest token leads, likely the rarest."""
    first, *others = sorted({token[:MAX_TERM] for token in tokens(query)}, key=lambda t: (-len(t), t))
    found = select(NoticeTermRow.log_id, NoticeTermRow.idx).where(
        NoticeTermRow.kind == "n", NoticeTermRow.term == first
    )
    for n, token in enumerate(others):
        other = NoticeTermRow.__table__.alias(f"name_{n}")
        found = found.where(
            select(true())
            .where(
                other.c.kind == "n",
                other.c.term == token,
                other.c.log_id == NoticeTermRow.log_id,
                other.c.idx == NoticeTermRow.idx,
                other.c.pos == NoticeTermRow.pos,
            )
            .correlate(NoticeTermRow)
            .exists()
        )
    return tuple_(NoticeRow.log_id, NoticeRow.idx).in_(found)


def _has_text(queries: tuple[str, ...]) -> ColumnElement[bool]:
    return or_(
        *(
            and_(*(NoticeRow.search_text.contains(word, autoescape=True) for word in query.split()))
            for query in queries
        )
    )


def _is_review_overdue(values: tuple[str, ...], now_ms: int) -> ColumnElement[bool]:
    today = day_of(now_ms).isoformat()
    if values == ("true",):
        return NoticeRow.review_due < today
    return or_(NoticeRow.review_due.is_(None), NoticeRow.review_due >= today)


def _stands(values: tuple[str, ...]) -> ColumnElement[bool]:
    confirmed = NoticeRow.current_idx < (
        select(LogRow.confirmed_size).where(LogRow.id == NoticeRow.log_id).scalar_subquery()
    )
    frozen = NoticeRow.log_id.in_(select(LogRow.id).where(LogRow.status == "frozen"))
    standing = {
        "confirmed": confirmed,
        "provisional": and_(not_(confirmed), not_(frozen)),
        "unproven": and_(not_(confirmed), frozen),
    }
    return or_(false(), *(standing[value] for value in values))


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: how its text is read, what it asks of a row, and what it is for."""

    read: Callable[[str], str]
    condition: Callable[[tuple[str, ...], int], ColumnElement[bool]]  # canonical values, unix ms
    doc: str
    single: bool = False


def _column(column: Any) -> Callable[[tuple[str, ...], int], ColumnElement[bool]]:  # noqa: ANN401 - a mapped attribute
    return lambda values, _: column == values[0] if len(values) == 1 else column.in_(values)


def _timeless(
    condition: Callable[[tuple[str, ...]], ColumnElement[bool]],
) -> Callable[[tuple[str, ...], int], ColumnElement[bool]]:
    return lambda values, _: condition(values)


PARAMETERS: Final[Mapping[str, Parameter]] = {
    "type": Parameter(
        _one_of("type of notice", [t for t, kind in KIND_OF_TYPE.items() if kind == "issue"]),
        _column(NoticeRow.type),
        "Type of notice, for instance denied_end_user.",
    ),
    "issuer": Parameter(_state, _column(NoticeRow.issuer), "State that issued it, alpha-2."),
    "origin": Parameter(
        _origin,
        lambda v, _: NoticeRow.log_id.in_(select(LogRow.id).where(LogRow.origin.in_(v))),
        "Log that carries it.",
    ),
    "status": Parameter(
        _one_of("status", STATUSES),
        _has_status,
        "active (valid now; the default), expired, withdrawn, erased, recalled (from this State) or all.",
    ),
    "review_overdue": Parameter(
        _flag,
        _is_review_overdue,
        "true: the review date has passed. Such a notice stays valid until its issuer decides.",
        single=True,
    ),
    "standing": Parameter(
        _one_of("standing", ("confirmed", "provisional", "unproven")),
        lambda v, _: _stands(v),
        "confirmed: a quorum of witnesses vouches for the newest version; provisional: not yet; unproven: its log has signed two histories.",
    ),
    "code": Parameter(
        control_codes.canonical_query,
        _timeless(_has_term("c")),
        "Control-list code or the beginning of one: 5A001 finds 5A001.j, and 5.A.1.j is 5A001.j.",
    ),
    "country": Parameter(country, _timeless(_has_term("l")), "Country of a party or a destination, alpha-2."),
    "party": Parameter(
        _words,
        _timeless(_has_party),
        "Words that occur together in one name of a party; case and diacritics do not matter.",
    ),
    "concern": Parameter(
        _one_of("human-rights concern", CONCERNS), _timeless(_has_term("h")), "Human-rights concern code."
    ),
    "tlp": Parameter(
        _tlp,
        lambda v, _: NoticeRow.tlp_rank.in_([int(Tlp.parse(t)) for t in v]),
        "Label, for instance TLP:AMBER.",
    ),
    "text": Parameter(
        _words,
        _timeless(_has_text),
        "Words that occur anywhere in title, summary, reference or narratives; for names use party.",
    ),
    "denied_since": Parameter(
        _date, lambda v, _: NoticeRow.denied_on >= v[0], "Denied on or after this date.", single=True
    ),
    "lookback_years": Parameter(
        _years,
        lambda v, now_ms: NoticeRow.denied_on >= years_before(day_of(now_ms), int(v[0])).isoformat(),
        "Denied within so many years. Unless a status is given, expired denials are then shown beside valid ones.",
        single=True,
    ),
    "issued_from": Parameter(
        _from,
        lambda v, _: NoticeRow.iat >= _whole_seconds(_ms_from(v[0])),
        "Issued at or after.",
        single=True,
    ),
    "issued_to": Parameter(
        _until,
        lambda v, _: NoticeRow.iat < _whole_seconds(_ms_until(v[0])),
        "Issued before; a date includes its day.",
        single=True,
    ),
    "received_from": Parameter(
        _from,
        lambda v, _: NoticeRow.received_at >= _ms_from(v[0]),
        "Received by this node at or after.",
        single=True,
    ),
    "received_to": Parameter(
        _until,
        lambda v, _: NoticeRow.received_at < _ms_until(v[0]),
        "Received before; a date includes its day.",
        single=True,
    ),
}


_OF_HEADER: Final = frozenset(
    {"issuer", "origin", "standing", "issued_from", "issued_to", "received_from", "received_to"}
)
"""Parameters that are answered without a notice's content."""


@dataclass(frozen=True, slots=True)
class NoticeFilter:
    """What to find. Make it with `parse` or `from_json`; `NoticeFilter()` finds what is valid now.

    Attributes:
        values: parameter -> canonical values, in a fixed order.
    """

    values: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def parse(cls, parameters: Iterable[tuple[str, str]]) -> NoticeFilter:
        """Read pairs of name and value, as they stand in a query string.

        Raises:
            InvalidFilter: an unknown name, a value outside its vocabulary, a single parameter given twice.
        """
        read: dict[str, set[str]] = {}
        for name, text in parameters:
            parameter = PARAMETERS.get(name)
            if parameter is None:
                raise InvalidFilter(f"{name!r} is no parameter here. Known: {', '.join(PARAMETERS)}.")
            try:
                read.setdefault(name, set()).add(parameter.read(text))
            except InvalidFilter as error:
                raise InvalidFilter(f"{name}: {error}") from error
            except Malformed as error:
                raise InvalidFilter(f"{name}: {error}") from error
            if len(read[name]) > (1 if parameter.single else MAX_ALTERNATIVES):
                raise InvalidFilter(
                    f"{name} may be given {'once' if parameter.single else f'{MAX_ALTERNATIVES} times'} only."
                )
        return cls(tuple((name, tuple(sorted(read[name]))) for name in sorted(read)))

    @classmethod
    def from_json(cls, value: object) -> NoticeFilter:
        """Read the JSON form: an object of parameter to text or list of texts.

        Raises:
            InvalidFilter: see `parse`; or it is no such object.
        """
        if not isinstance(value, dict):
            raise InvalidFilter("A filter is a JSON object of the parameters of /v1/notices.")
        pairs: list[tuple[str, str]] = []
        for name, given in value.items():
            for text in given if isinstance(given, list) else [given]:
                if not isinstance(text, str | int | bool):
                    raise InvalidFilter(f"{name}: give a text or a list of texts.")
                pairs.append((name, str(text).lower() if isinstance(text, bool) else str(text)))
        return cls.parse(pairs)

    def to_json(self) -> dict[str, list[str]]:
        """The canonical JSON form, which `from_json` reads."""
        return {name: list(values) for name, values in self.values}

    def conditions(
        self, principal: Principal, now_ms: int, *, any_status: bool = False
    ) -> list[ColumnElement[bool]]:
        """What a row of `notices` must satisfy, the gate included.

        Args:
            principal: who asks.
            now_ms: unix ms, for what is valid now.
            any_status: leave the status out: an alert about a withdrawal concerns what is no longer valid.
        """
        names = {name for name, _ in self.values}
        found: list[ColumnElement[bool]] = []
        if "status" not in names and not any_status:
            default = ("active", "expired") if "lookback_years" in names else ("active",)
            found.append(_has_status(default, now_ms))
        shown = and_(NoticeRow.content_state.in_(SHOWN), *found, *self.named(now_ms, any_status=any_status))
        if any_status or not self.asks_for_recalled():
            return [visible(principal), shown]
        by_header = [
            PARAMETERS[name].condition(values, now_ms) for name, values in self.values if name in _OF_HEADER
        ]
        return [visible(principal), or_(shown, and_(NoticeRow.content_state == RECALLED, *by_header))]

    def asks_for_recalled(self) -> bool:
        """Whether recalled notices are wanted: by status, and by nothing that only their hidden content could answer."""
        statuses = dict(self.values).get("status", ())
        names = {name for name, _ in self.values} - {"status"}
        return bool({RECALLED, "all"} & set(statuses)) and names <= _OF_HEADER

    def named(self, now_ms: int, *, any_status: bool = False) -> list[ColumnElement[bool]]:
        """Only what the parameters themselves ask of a row of `notices`; the caller asks the gate.

        Args:
            now_ms: unix ms.
            any_status: leave the status out.
        """
        return [
            PARAMETERS[name].condition(values, now_ms)
            for name, values in self.values
            if not (any_status and name == "status")
        ]

    def fingerprint(self) -> str:
        """Twelve characters that name this filter, for cursors."""
        return b64u_encode(sha256(orjson.dumps(self.values)).digest()[:9])


# ── cursors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def make_cursor(scope: str, position: int) -> str:
    """An opaque text that continues the list named `scope` after `position`."""
    return b64u_encode(orjson.dumps([1, scope, position]))


def read_cursor(scope: str, cursor: str) -> int:
    """The position in a cursor of the list named `scope`.

    A cursor is not secret and not signed: the gate decides anew on every page, and any position is a legitimate one.

    Raises:
        InvalidCursor: not made by `make_cursor`, or for another list.
    """
    try:
        version, named, position = orjson.loads(b64u_decode(cursor))
    except (Malformed, ValueError, TypeError, binascii.Error) as error:
        raise InvalidCursor(
            "This is not a cursor of this node. Pass `next` exactly as it was given."
        ) from error
    if version != 1 or type(position) is not int or not 0 <= position < 2**62:
        raise InvalidCursor("This is not a cursor of this node. Pass `next` exactly as it was given.")
    if named != scope:
        raise InvalidCursor(
            "This cursor belongs to another query. Keep the other parameters as they were, or begin without a cursor."
        )
    return position
