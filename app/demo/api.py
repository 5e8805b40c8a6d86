"""The demo's HTTP client: asks nodes as any client would, and turns every unexpected answer into DemoFailed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson

from app.demo.errors import DemoFailed
from app.domain.encoding import b64u_decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from app.demo.found import FoundedNode

TIMEOUT_S: Final = 30.0
ALIVE_S: Final = 2.0
"""Whatever listens on a node's port and says nothing for so long is not a node that is ready."""
RETRY_S: Final = 30.0
"""How long a node that was killed may take to come back. A batch can be sent again: what was stored answers 200."""
POLL_S: Final = 0.1


class Api:
    """One node, asked with the token of its State's member system."""

    def __init__(self, node: FoundedNode, token: str, *, patience_s: float = RETRY_S) -> None:
        """Nothing is asked yet. For `patience_s` a batch is sent again to a node that does not take it."""
        self._patience_s = patience_s
        self.state, self.origin, self.url = node.member.state, node.member.origin, node.member.url
        self.token = token
        self._client = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            trust_env=False,  # loopback is asked directly, whatever proxy this machine has
        )

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def get(
        self, path: str, params: Mapping[str, str | int] | None = None, *, expect: int = 200
    ) -> httpx.Response:
        """GET; DemoFailed unless the status is as expected."""
        return self._checked(lambda: self._client.get(path, params=params), f"GET {path}", expect)

    def json(self, path: str, **params: str | int) -> Any:  # noqa: ANN401 - a JSON value
        """GET, as JSON."""
        return self.get(path, params).json()

    def alive(self) -> bool:
        """Whether the node answers, is ready and takes notices: a node that starts asks the others' witnesses first."""
        try:
            if self._client.get("/health/ready", timeout=ALIVE_S).status_code != httpx.codes.OK:
                return False
            found = self._client.get("/v1/federation", timeout=ALIVE_S)
            return found.status_code == httpx.codes.OK and bool(found.json()["accepting"])
        except httpx.TransportError:
            return False

    def answers(self) -> bool:
        """Whether the node answers at all."""
        try:
            return self._client.get("/health/live", timeout=ALIVE_S).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def post(self, path: str, value: Any, expect: int = 201) -> Any:  # noqa: ANN401 - JSON values
        """POST a JSON value."""
        return self._checked(lambda: self._client.post(path, json=value), f"POST {path}", expect).json()

    def post_raw(self, path: str, content: bytes, *, expect: int) -> bytes:
        """POST bytes as JSON; the answer's bytes."""
        headers = {"content-type": "application/json"}
        ask = lambda: self._client.post(path, content=content, headers=headers)  # noqa: E731 - one line
        return self._checked(ask, f"POST {path}", expect).content

    def delete(self, path: str) -> None:
        """DELETE."""
        self._checked(lambda: self._client.delete(path), f"DELETE {path}", 204)

    def post_notice(self, line: bytes) -> Posted:
        """Post one signed notice; its receipt."""
        headers = {"content-type": "application/json"}
        response = self._checked(
            lambda: self._client.post("/v1/notices", content=line, headers=headers), "POST /v1/notices", 201
        )
        return Posted(response.json())

    def post_batch(self, lines: Sequence[bytes]) -> list[Posted]:
        """Post many signed notices; their receipts. Sent again while the node cannot be reached, for a while."""
        content, headers = b"\n".join(lines) + b"\n", {"content-type": "application/x-ndjson"}
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                response = self._client.post("/v1/notices/batch", content=content, headers=headers)
                answers = [orjson.loads(answer) for answer in response.content.splitlines()]
                busy = [a for a in answers if a["status"] == httpx.codes.SERVICE_UNAVAILABLE]
                why = (
                    f"{response.status_code}, {busy[0].get('detail') or busy[0].get('problem')}"
                    if busy
                    else ""
                )
            except httpx.TransportError as error:
                why = str(error)
                answers = []
            if not why:
                break
            if time.monotonic() > deadline:
                raise DemoFailed(f"{self.state} takes no batch at {self.url}: {why}.")
            time.sleep(POLL_S)
        for answer in answers:
            if "receipt" not in answer:
                refused = answer.get("problem", answer)
                raise DemoFailed(f"{self.state} refused a notice: {refused.get('detail')}")
        if len(answers) != len(lines):
            raise DemoFailed(f"{self.state} answered {len(answers)} of {len(lines)} notices.")
        return [Posted(answer["receipt"]) for answer in answers]

    def _checked(self, ask: Callable[[], httpx.Response], what: str, expect: int) -> httpx.Response:
        try:
            response = ask()
        except httpx.TransportError as error:
            raise DemoFailed(f"{self.state} does not answer at {self.url} ({what}): {error}.") from error
        if response.status_code != expect:
            raise DemoFailed(
                f"{self.state} answered {response.status_code} to {what}, expected {expect}: {response.text[:500]}"
            )
        return response


class Posted:
    """A receipt."""

    def __init__(self, receipt: dict[str, Any]) -> None:
        """From the wire."""
        self.id: str = receipt["id"]
        self.index: int = receipt["index"]
        self.origin: str = receipt["origin"]
        self.hash_text: str = receipt["leaf_hash"]

    @property
    def hash(self) -> bytes:
        """The leaf hash, 32 bytes."""
        return b64u_decode(self.hash_text)


def wait_until(
    what: str, condition: Callable[[], bool], *, seconds: float, watch: Callable[[], None]
) -> None:
    """Poll until it holds.

    Args:
        watch: called at each turn; raises if waiting has become pointless.

    Raises:
        DemoFailed: it did not in time.
    """
    deadline = time.monotonic() + seconds
    watch()
    while not condition():
        watch()
        if time.monotonic() > deadline:
            raise DemoFailed(f"Waited {seconds:.0f} s in vain: {what}.")
        time.sleep(POLL_S)
