"""The one gate: who may see what. Every output of the node passes `may_read` or its SQL twin `visible`.

What a caller may not see does not exist for it: it is absent from lists and counts, and asking for it by id answers as
an id that was never used. An empty audience means nobody but the issuer; an unknown handling means nobody at all.

The two forms state one rule, and a property test holds them against each other for random notices and callers:

    rank(tlp) <= ceiling, and
    anonymous:       the audience is ALL (and the ceiling of anonymous is CLEAR)
    State S:         S issued it, or the audience is ALL, or S is in it

An event about a notice passes this rule for the notice, and besides `may_see_event`, with its SQL twin `event_visible`:

    private (it names an owner):  the token that is its owner
    about no notice:              whoever has the scope `read` or `subscribe`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import and_, exists, false, or_, select, true

from app.domain.errors import NotAllowed, NotAuthenticated
from app.domain.handling import Tlp
from app.models import EventRow, NoticeRow, NoticeTermRow

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

PrincipalKind = Literal["anonymous", "token", "peer", "operator"]
Scope = Literal["read", "screen", "subscribe", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "screen", "subscribe", "admin")


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever asks.

    Attributes:
        kind: anonymous, a token of this State, a peer node (message signature), or the operator at this machine.
        state: the State on whose behalf it asks; None for anonymous.
        ceiling: highest TLP rank it may see.
        scopes: what it may do; reading public things needs none.
        id: token id or key id, for logs; never a secret.
    """

    kind: PrincipalKind
    state: str | None
    ceiling: int
    scopes: frozenset[str]
    id: str | None = None

    def require(self, scope: Scope) -> None:
        """Check a scope.

        Raises:
            NotAuthenticated: anonymous; a credential would be needed.
            NotAllowed: the credential does not carry the scope.
        """
        if scope in self.scopes:
            return
        if self.kind == "anonymous":
            raise NotAuthenticated(
                f"This needs an API token with the scope {scope!r}. Send it as: Authorization: Bearer <token>."
            )
        raise NotAllowed(
            f"This credential does not carry the scope {scope!r}. Ask this node's operator for one that does."
        )


ANONYMOUS: Final = Principal("anonymous", None, int(Tlp.CLEAR), frozenset())


def operator(state: str) -> Principal:
    """The operator at the node's own machine (CLI): reads all that the State may read."""
    return Principal("operator", state, int(Tlp.RED), frozenset(SCOPES), "operator")


def peer(state: str, kid: str) -> Principal:
    """Another State's node that proved itself by a message signature."""
    return Principal("peer", state, int(Tlp.RED), frozenset({"read"}), kid)


def may_read(principal: Principal, *, issuer: str, tlp_rank: int, audience: str | None) -> bool:
    """Whether `principal` may see something with this handling.

    Args:
        issuer: State that issued it.
        tlp_rank: 0 (CLEAR) to 4 (RED); anything above: unknown, hidden from all.
        audience: "ALL", codes joined by a space, "" for nobody, None for unknown.
    """
    if tlp_rank > min(principal.ceiling, int(Tlp.RED)) or audience is None:
        return False
    if audience == "ALL":
        return True
    if principal.state is None:
        return False
    return principal.state == issuer or principal.state in audience.split()


def visible(principal: Principal) -> ColumnElement[bool]:
    """The same rule as an SQL condition on `notices`."""
    within_ceiling = NoticeRow.tlp_rank <= min(principal.ceiling, int(Tlp.RED))
    if principal.state is None:
        return and_(within_ceiling, NoticeRow.audience_all)
    addressed = exists(
        select(true()).where(
            NoticeTermRow.kind == "a",
            NoticeTermRow.term == principal.state,
            NoticeTermRow.log_id == NoticeRow.log_id,
            NoticeTermRow.idx == NoticeRow.idx,
        )
    )
    return and_(within_ceiling, or_(NoticeRow.audience_all, NoticeRow.issuer == principal.state, addressed))


_TOLD_OF_THE_NODE: Final[frozenset[Scope]] = frozenset({"read", "subscribe"})


def may_see_event(principal: Principal, *, owner: str | None, of_notice: bool) -> bool:
    """Whether `principal` may see an event, apart from what the handling of its notice says.

    Args:
        owner: id of the token whose private event it is; None: nobody's.
        of_notice: it concerns a notice or a statement about one, so that `may_read` or `visible` decides the rest.
    """
    if owner is not None:
        return principal.kind == "token" and principal.id == owner
    return of_notice or not _TOLD_OF_THE_NODE.isdisjoint(principal.scopes)


def event_visible(principal: Principal) -> ColumnElement[bool]:
    """The same rule as an SQL condition on `events`. An event that names a leaf of a log concerns a notice."""
    own = EventRow.owner == principal.id if principal.kind == "token" else false()
    open_: ColumnElement[bool] = EventRow.owner.is_(None)
    if _TOLD_OF_THE_NODE.isdisjoint(principal.scopes):
        open_ = and_(open_, EventRow.idx.is_not(None))
    return or_(own, open_)
