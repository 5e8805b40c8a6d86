"""A receiver of Verbale's webhooks that a case system can be built on. Needs `pip install standardwebhooks`, and nothing of Verbale.

    WEBHOOK_SECRET=whsec_… python receiver.py                      listens on 127.0.0.1:8000 and keeps events in inbox.db
    python receiver.py list                                        shows what came
    NODE=https://node.example TOKEN=vbl_… python receiver.py catch-up     asks the feed for what did not come

What it does right, and why:

* It verifies the exact bytes before it looks into them, and answers 401 to whatever does not hold.
* It stores an event before it says 204: a crash in between makes the node send it again, and nothing is lost.
* `webhook-id` is a primary key: a delivery that comes twice is stored once.
* It does no work while the node waits. Whatever acts on an event reads the table afterwards.
* A secret that is being changed: put both into WEBHOOK_SECRET, with a blank between them, until the old one has ended.
* Now and then it asks the feed: whatever happened to either side, it then knows that nothing is missing.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from standardwebhooks import Webhook, WebhookVerificationError

INBOX = os.environ.get("INBOX", "inbox.db")
FILTER = os.environ.get("FILTER", "")  # as in the subscription: type=denied_end_user&country=ZM
MOST_BYTES = 70_000  # a node sends at most 64 KiB

SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries (webhook_id TEXT PRIMARY KEY, fact TEXT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS events (fact TEXT PRIMARY KEY, type TEXT NOT NULL, data TEXT NOT NULL, done INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS place (cursor TEXT NOT NULL);
"""


def inbox() -> sqlite3.Connection:
    """The table of what came."""
    connection = sqlite3.connect(INBOX, timeout=30)
    connection.executescript(SCHEMA)
    return connection


def fact(event: dict) -> str:
    """What names an event whichever way it came: its type and the signed statement that caused it."""
    data = event["data"]
    if data.get("leaf_hash"):
        return f"{event['type']} {data['origin']} {data['index']}"
    return f"{event['type']} {event['timestamp']} {data.get('id') or json.dumps(data, sort_keys=True)}"


def keep(connection: sqlite3.Connection, event: dict) -> bool:
    """Store an event; whether it is new."""
    data = {name: value for name, value in event["data"].items() if name != "sequence"}
    known = fact({**event, "data": data})
    row = (known, event["type"], json.dumps(data))
    return (
        connection.execute("INSERT OR IGNORE INTO events (fact, type, data) VALUES (?, ?, ?)", row).rowcount
        == 1
    )


class Receiver(BaseHTTPRequestHandler):
    """One delivery."""

    webhooks: ClassVar[list[Webhook]] = []

    def do_POST(self) -> None:
        """Verify, store, answer."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            self._answer(413)
            return
        body = self.rfile.read(int(length))
        event = self._verified(body)
        if event is None:
            self._answer(401)
            return
        with closing(inbox()) as connection, connection:  # commits, or the node gets no 204
            row = (self.headers["webhook-id"], fact(event), body)
            first = connection.execute("INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?)", row).rowcount == 1
            if first and event["type"] != "webhook.test":
                keep(connection, event)
        self._answer(204)
        print("new" if first else "again", event["type"], event["data"].get("url", ""), flush=True)

    def _verified(self, body: bytes) -> dict | None:
        for webhook in self.webhooks:
            try:
                return webhook.verify(body, dict(self.headers))
            except (
                WebhookVerificationError,
                ValueError,
            ):  # ValueError: headers that are not even well formed
                continue
        return None

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing more than `do_POST` does."""


def listen() -> None:
    """Take deliveries until interrupted."""
    secrets = os.environ["WEBHOOK_SECRET"].split()
    if not all(secret.startswith("whsec_") for secret in secrets):
        raise SystemExit("WEBHOOK_SECRET holds one secret, or two during a change; each begins with whsec_")
    Receiver.webhooks = [Webhook(secret) for secret in secrets]
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000")))
    server = ThreadingHTTPServer(address, Receiver)
    print(f"listening on http://{address[0]}:{server.server_port}", flush=True)
    server.serve_forever()


def catch_up() -> None:
    """Take from the feed what did not come, from where the last catch-up ended."""
    node, token = os.environ["NODE"].rstrip("/"), os.environ["TOKEN"]
    with closing(inbox()) as connection:
        stored = connection.execute("SELECT cursor FROM place").fetchone()
        cursor, more, new = stored[0] if stored else "oldest", True, 0
        while more:
            query = urllib.parse.urlencode({"cursor": cursor, "live": "true"})
            url = f"{node}/v1/feed?{query}&{FILTER}".rstrip("&")
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    page = json.load(answer)
            except urllib.error.HTTPError as problem:
                if problem.code == HTTPStatus.GONE:
                    raise SystemExit(
                        "The feed cannot go on from here: read GET /v1/notices anew, then delete `place`."
                    ) from None
                raise SystemExit(problem.read().decode()) from None
            with connection:  # the events and the place behind them, or neither
                new += sum(keep(connection, event) for event in page["items"])
                connection.execute("DELETE FROM place")
                connection.execute("INSERT INTO place VALUES (?)", (page["next"],))
            cursor, more = page["next"], page["more"]
        print(f"{new} events had not come", flush=True)


def show() -> None:
    """Print what came, in order of arrival."""
    with closing(inbox()) as connection:
        for type_, data in connection.execute("SELECT type, data FROM events ORDER BY rowid"):
            print(type_, json.loads(data).get("url", data))


if __name__ == "__main__":
    commands = {"listen": listen, "catch-up": catch_up, "list": show}
    commands[sys.argv[1] if len(sys.argv) > 1 else "listen"]()
