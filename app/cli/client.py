"""Asking a node over HTTP on behalf of a person: problem documents become sentences, silence becomes an error.

Guarantees bounded waiting, no redirects followed and no proxy taken from the environment; a token is sent to the one
address that was named.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import httpx

from app.domain.errors import Malformed, PeerFault, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CONNECT_S: Final = 10.0
ANSWER_S: Final = 120.0
"""A batch is answered when all of it is durable."""


class Unreachable(PeerFault):
    """The node does not answer."""

    code = "unreachable"


class NotANode(PeerFault):
    """Something answers, and not as a node does."""

    code = "not-a-node"


class AnsweredRefusal(Refused):
    """The node refused. `code` is that of its problem document, `problem` the whole of it."""

    code = "refused"

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        """Take over the document's code, so that scripts see the node's own word for it."""
        self.status, self.problem = status, problem
        self.code = problem_code(problem)  # type: ignore[misc]  # a class variable of the family, the node's word here
        super().__init__(problem_sentence(problem))


def problem_code(problem: Mapping[str, Any]) -> str:
    """The part of `type` after the #."""
    return str(problem.get("type", "")).rpartition("#")[2] or "refused"


def problem_sentence(problem: Mapping[str, Any]) -> str:
    """What a problem document says, its pointers included where the detail leaves some out."""
    said = str(problem.get("detail") or problem.get("title") or "The node refused, and does not say why.")
    errors = problem.get("errors")
    if isinstance(errors, list) and len(errors) > 3:  # noqa: PLR2004 - the detail shows the first three
        said += " All of them: " + "; ".join(
            f"{e.get('pointer') or '/'}: {e.get('detail')}" for e in errors if isinstance(e, dict)
        )
    return said


class NodeClient:
    """One node, asked with one token or none."""

    def __init__(
        self, url: str, token: str | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        """`url` is the node's base URL.

        Raises:
            Malformed: it is no URL of a node, or the token cannot be sent.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise Malformed(f"{url!r} is no node's address. Write it like https://node.example.")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise Malformed("The token holds characters that no token has. Copy it again.")
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._url = url.rstrip("/")
        self._client = httpx.Client(
            headers={"accept": "application/json", "user-agent": "verbale-cli"} | headers,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, params: Sequence[tuple[str, str]] = ()) -> Any:  # noqa: ANN401 - any JSON value
        """The JSON answer of a GET.

        Raises:
            Unreachable, NotANode, AnsweredRefusal
        """
        return _json(self.send("GET", path, params=list(params)))

    def sent(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - any JSON value
        """The JSON answer of any other request, with a JSON body or none.

        Raises:
            Unreachable, NotANode, AnsweredRefusal
        """
        return _json(self.send(method, path, **({} if body is None else {"json": body})))

    def pages(
        self, path: str, params: Sequence[tuple[str, str]], limit: int, *, largest: int = 200
    ) -> tuple[list[Any], Any]:
        """All items of a list that has pages, or its first `limit` (0: all), and the last page had.

        Args:
            largest: items of one page, as the API allows.

        Raises:
            Unreachable, NotANode, AnsweredRefusal
        """
        items: list[Any] = []
        cursor: list[tuple[str, str]] = []
        while True:
            size = min(largest, limit - len(items)) if limit else largest
            page = self.get(path, [*params, ("limit", str(size)), *cursor])
            items += page["items"]
            if page["next"] is None or (limit and len(items) >= limit):
                return items, page
            cursor = [("cursor", page["next"])]

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own arguments
        """Any request; the answer is a 2xx.

        Raises:
            Unreachable, NotANode, AnsweredRefusal
        """
        try:
            response = self._client.request(method, f"{self._url}{path}", **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(
                f"{self._url} cannot be reached: {str(error) or type(error).__name__}."
            ) from error
        if response.is_success:
            return response
        if not response.headers.get("content-type", "").startswith("application/problem+json"):
            raise NotANode(f"{self._url}{path} answers {response.status_code} and is no node of this kind.")
        problem = _json(response)
        raise AnsweredRefusal(response.status_code, problem if isinstance(problem, dict) else {})


@contextmanager
def node_client(url: str, token: str | None = None) -> Iterator[NodeClient]:
    """A client that is closed at the end."""
    client = NodeClient(url, token)
    try:
        yield client
    finally:
        client.close()


def notice_path(notice_id: str, rest: str = "") -> str:
    """`/v1/notices/<id><rest>`, whatever a person typed for the id."""
    return f"/v1/notices/{quote(notice_id, safe='')}{rest}"


def _json(response: httpx.Response) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotANode(f"{response.url} answers something that is not JSON.") from error
