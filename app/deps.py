"""What routes ask for: the node, the caller, the page of a list.

Guarantees that a request has exactly one caller: a valid token, a valid peer's signature, or anonymous. A credential that
is there and does not hold is refused, and never quietly treated as anonymous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Protocol

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from app import tokens
from app.domain.errors import NotAuthenticated
from app.gate import ANONYMOUS, Principal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.clock import Clock
    from app.db import Database
    from app.domain.errors import VerbaleError
    from app.domain.roster import Roster
    from app.domain.signed import SignedNotice
    from app.judging import Judged
    from app.record import Receipt
    from app.replication.witness import WitnessIdentity
    from app.roster import RosterClient
    from app.screening.answering import Finder
    from app.screening.crew import Crew
    from app.settings import Settings
    from app.tlog.checkpoint import Checkpoint
    from app.tlog.witness import Submission


class Node(Protocol):
    """What the HTTP edge needs of the running node; `app.node` provides it."""

    settings: Settings
    db: Database
    clock: Clock
    origin: str
    state: str

    def roster(self) -> Roster:
        """The roster in force; raises RosterMissing."""
        ...

    async def submit(self, signed: SignedNotice) -> Receipt:
        """Judge and record one notice; returns when it is durable. Raises Refused."""
        ...

    async def judge_posts(
        self, notices: Sequence[SignedNotice | bytes], *, flood: bool = False
    ) -> list[Judged | VerbaleError]:
        """Judge notices, read or as the bytes that came; one outcome each, in order. `flood`: thousands are coming."""
        ...

    async def record_posts(self, outcomes: Sequence[Judged | VerbaleError]) -> list[Receipt | VerbaleError]:
        """Record what was judged good, in order; one answer each, after the commit. Raises Busy."""
        ...

    async def authenticate_peer(self, request: Request) -> Principal:
        """The State whose key signed the request (RFC 9421); raises NotAuthenticated or NotAllowed."""
        ...

    def take_submission(self, submission: Submission) -> tuple[Checkpoint, bytes | None]:
        """Store what an offered checkpoint adds, then cosign it; the signature line, or None while that takes long."""
        ...

    def take_evidence(self, raw: bytes) -> tuple[str, bool]:
        """Judge a record of evidence that somebody brings; its id and whether it is new. Raises EvidenceRefused."""
        ...

    @property
    def witness(self) -> WitnessIdentity:
        """This node's witness."""
        ...

    @property
    def roster_client(self) -> RosterClient:
        """Keeper of the verified roster and its files."""
        ...

    @property
    def crew(self) -> Crew:
        """Answers long batches on every core."""
        ...

    @property
    def is_warming(self) -> bool:
        """Whether what is screened against is being read for the first time."""
        ...

    @property
    def finder(self) -> Finder:
        """What finds parties in notices."""
        ...

    def stopped_loops(self) -> list[str]:
        """Names of background loops that should run and have not shown life in time."""
        ...


_SCHEMES: Final = frozenset({"bearer", "apikey"})
"""`ApiKey` is what clients of yente send; it carries the same token."""


def node_of(request: Request) -> Node:
    """The node that serves this request."""
    node: Node = request.app.state.node
    return node


async def principal_of(request: Request) -> Principal:
    """The caller.

    Raises:
        NotAuthenticated: a credential was sent and does not hold, or two were.
        NotAllowed: a peer that may not ask (not a member).
    """
    authorization = request.headers.get("authorization")
    signed = "signature-input" in request.headers
    if authorization is not None and signed:
        raise NotAuthenticated("The request carries a token and a signature. Send one of the two.")
    node = node_of(request)
    if signed:
        return await node.authenticate_peer(request)
    if authorization is None:
        return ANONYMOUS
    return await run_in_threadpool(
        tokens.authenticate, node.db, token_in(authorization), state=node.state, now_ms=node.clock()
    )


def token_in(authorization: str) -> str:
    """The text of the token that a header holds; raises NotAuthenticated if it holds something else."""
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() not in _SCHEMES:
        raise NotAuthenticated("Only bearer tokens are taken here. Send: Authorization: Bearer <token>.")
    return text.strip()


async def reader_of(request: Request) -> Principal:
    """The caller of a route that reads: a token needs the scope `read`; whoever sends none reads what is public.

    Raises:
        NotAuthenticated, NotAllowed: see `principal_of`; or the scope is missing.
    """
    principal = await principal_of(request)
    if principal.kind != "anonymous":
        principal.require("read")
    return principal


async def screener_of(request: Request) -> Principal:
    """The caller of a route that screens: a token with the scope `screen`. It shows notices, each by what it says of a party,
    up to the token's ceiling; reading whole notices needs `read`.

    Raises:
        NotAuthenticated, NotAllowed: see `principal_of`; or the scope is missing, or it is no token of this State.
    """
    principal = await principal_of(request)
    principal.require("screen")
    return principal


CurrentNode = Annotated[Node, Depends(node_of)]
CurrentPrincipal = Annotated[Principal, Depends(principal_of)]
CurrentReader = Annotated[Principal, Depends(reader_of)]
CurrentScreener = Annotated[Principal, Depends(screener_of)]
