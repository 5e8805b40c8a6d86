"""What a caller is told when something is refused: RFC 9457 documents, from one table, on every path.

Guarantees that every answer with an error status is `application/problem+json` with `type`, `title`, `status`, `detail` and
`instance`; that `type` is an absolute address whose page explains the problem; and that an error nobody foresaw says
nothing of the node's inside. Codes are stable: a program may match on the part of `type` after the `#`.

The table is also the source of `docs/problems.md` (`python -m app.problems > docs/problems.md`) and of the page `/problems`.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, Response

from app.domain.errors import VerbaleError
from app.observability import log, request_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 5
"""A group commit takes milliseconds: whoever is told to come back may do so soon."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem: its status, its fixed title, and what it means and asks for, for people."""

    status: int
    title: str
    meaning: str


PROBLEMS: Final[Mapping[str, Problem]] = {
    # ── requests ──
    "malformed-request": Problem(422, "The request does not have the documented shape",
        "A member is missing, unknown or of the wrong kind; `errors` points at each. `/docs` shows the shape."),
    "invalid-filter": Problem(400, "A query parameter is unknown or out of range",
        "Unknown parameters are refused, so that a misspelt filter never widens an answer. The detail names those that are known."),
    "invalid-cursor": Problem(400, "The cursor is not one of this list",
        "A cursor continues the very query that gave it. Take `next` as it is, keep the other parameters, or begin again without one."),
    "resync-needed": Problem(410, "The feed cannot go on from here",
        "What followed the cursor is no longer kept, or the node was restored from an older copy. Take `cursor=newest`, read `GET /v1/notices` anew, then follow from there: nothing is skipped silently."),
    "too-many-streams": Problem(429, "Too many connections wait for events",
        "A caller may hold a bounded number of streams and long polls. Close some, or ask again later; a cursor loses nothing by it."),
    "too-large": Problem(413, "Too large",
        "A limit of the node was passed: bytes of a body, lines of a batch. Send less at once; limits are settings of the node."),
    "headers-too-large": Problem(431, "The request's header is too large",
        "Names and values of the header fields together have at most 16 KiB. Leave out what is not needed, cookies first."),
    "too-slow": Problem(408, "The body came too slowly",
        "A body has to arrive within 20 seconds plus one second for every 8 KiB. Send it again; what was posted before stays."),
    "unsupported-encoding": Problem(415, "The content encoding is not supported",
        "Bodies are taken as they are or with `Content-Encoding: gzip`."),
    "bad-compression": Problem(422, "The compressed body is damaged",
        "It says it is gzip and is not, or ends early. Compress and send it again."),
    "not-authenticated": Problem(401, "A credential is needed",
        "It is missing, unknown, expired or revoked. Send a token of this node as `Authorization: Bearer vbl_…`, or sign the request with the node's roster key."),
    "not-allowed": Problem(403, "Not allowed",
        "Who asks is known and may not do this: the token lacks the scope, or the State is not in a position to."),
    "not-found": Problem(404, "Not found",
        "There is no such thing for this caller. The answer is the same whether it never existed or may not be seen."),
    "method-not-allowed": Problem(405, "This method is not offered here",
        "The header `Allow` names those that are."),
    "busy": Problem(503, "Too busy just now",
        "Nothing was changed. Try again after the time in `Retry-After`; posting the same bytes again is safe."),
    "node-starting": Problem(503, "The node is starting",
        "It asks the other States' witnesses how far its log is before it takes anything, so that no place in it is given away twice. Nothing was changed; post the same bytes again."),
    "log-stopped": Problem(503, "The log is stopped",
        "What its key has signed contradicts itself or what is stored here. Nothing is taken until the operator has seen to it."),
    "log-held": Problem(409, "Another process signs for the log",
        "The lease of a log is given to one process of its State's node at a time. If the other one is gone, its lease ends by itself; the detail says when."),
    "ambiguous-id": Problem(409, "The id stands in more than one log",
        "Two States used one id. Add `?origin=` with the log that is meant; the detail names the candidates."),
    # ── screening ──
    "invalid-screening": Problem(422, "This cannot be screened",
        "`errors` points at each part that was not understood. Nothing was screened, which is not the same as no match."),
    "watchlist-full": Problem(409, "No room for more to watch",
        "A token has so many watch-lists and stored parties, and no more. Delete what is not needed any more."),
    "no-calendar": Problem(422, "No calendar is kept for this",
        "Due dates are counted for Subscribing States, from 2000 to 2080, and for 1 to 30 working days."),
    "invalid-comparison": Problem(422, "Transactions cannot be compared like this",
        "A depth is category, group, number, paragraph or exact; a tolerance is a part from 0 to 1."),
    # ── what a notice is made of ──
    "unreadable-party": Problem(422, "The party to be screened cannot be read",
        "A party is `{\"schema\": \"Person\", \"properties\": {\"name\": [\"…\"]}}` with schemata and properties of the published list; "
        "the detail names what is not. It was not screened."),
    "nothing-to-compare": Problem(422, "There is nothing to screen by",
        "A name without letters, of one letter, of a title or a legal form alone finds nobody and everybody. Give the whole name, or an "
        "identifier. It was not screened, which is not the same as no match."),
    "malformed": Problem(422, "Malformed", "The bytes are not what the format asks for; the detail says where."),
    "malformed-json": Problem(422, "Not strict JSON",
        "Signed content is UTF-8, without duplicate members, NaN, lone surrogates or deep nesting: two parsers must not read it differently."),
    "non-canonical-encoding": Problem(422, "Not canonical base64url",
        "Base64url is unpadded and has one spelling for each value (RFC 4648 section 5): no `=`, no line breaks, no spare bits."),
    "malformed-statement": Problem(422, "The statement breaks its format",
        "A statement is a compact JWS with one spelling; `docs/protocol.md` gives it byte for byte."),
    "invalid-notice": Problem(422, "The notice does not follow its schema",
        "`errors` lists every fault with a JSON pointer into the main part. Mend them, commit and sign again under a new id."),
    "unknown-notice-type": Problem(422, "Unknown notice type",
        "This version does not know the type. A peer's notice of such a type is kept and flagged; it is not accepted locally."),
    "unknown-schema-version": Problem(422, "Unknown schema version",
        "The type is known and this version of its schema is not. Write the version this node publishes, or update the node."),
    "invalid-handling": Problem(422, "Label, audience and caveats do not fit together",
        "TLP:RED and TLP:AMBER+STRICT name their readers, TLP:CLEAR is for all, and an empty audience is nobody."),
    "unprintable-text": Problem(422, "A text holds characters that cannot be seen",
        "Control, bidirectional and invisible characters are refused, since a name must be what it looks like."),
    "unknown-country": Problem(422, "Unknown country", "Countries are ISO 3166-1 alpha-2 codes, or XK."),
    "invalid-control-code": Problem(422, "Not a code of this control list",
        "Each list has its own numbering; the detail says how its codes look."),
    "inapplicable-amendment": Problem(422, "The amendment cannot be applied",
        "What it changes does not fit the version it names. Read the current version and amend that."),
    # ── keys and signatures ──
    "invalid-signature": Problem(422, "The signature does not hold",
        "Sign the exact bytes that are sent, with the key that `kid` names; nothing may be re-serialised in between."),
    "unknown-key": Problem(403, "The roster does not list this key",
        "The roster lists no such key for that State. Use a listed key, or have it added to the State's document first."),
    "key-not-active": Problem(403, "The key does not count here",
        "It is not yet valid, expired or revoked. Sign with the State's current key."),
    "wrong-key-use": Problem(403, "The key is listed for another use",
        "A key does one thing: a contact-point key signs notices, a log key signs checkpoints."),
    "continuation-mismatch": Problem(422, "Not the log that is continued",
        "The first leaf of an epoch names origin, final size and root of the log before as the States have ended it; no other leaf does."),
    "log-ended": Problem(403, "The States have ended this log",
        "It signed two histories. What stands from its end on is unproven; its State goes on in the next epoch. See docs/operations.md."),
    "unacceptable-key": Problem(422, "The public key must not be used",
        "It has small order, is not canonical or has the wrong length. Make a new one with `verbale keys`."),
    # ── a statement against its parts and its log ──
    "commitment-mismatch": Problem(422, "A part does not open its commitment",
        "Salt and content must be the very bytes that were committed to, for this id and this part name."),
    "parts-mismatch": Problem(422, "The parts are not those the statement names",
        "Send each named part, and no other; attachments are listed in the main part too."),
    "wrong-log": Problem(422, "The statement was signed for another log",
        "A statement counts in the one log that its `log` names. Post it to that State's node."),
    "issuer-mismatch": Problem(403, "A State speaks for itself only",
        "The notice names an issuer other than the State whose log it is posted to."),
    "kind-mismatch": Problem(422, "Statement and notice are of different kinds",
        "An amendment travels in a statement of kind `amend`, a withdrawal in `withdraw`, and so on."),
    "reference-mismatch": Problem(422, "Statement and notice refer to different versions",
        "`ref` in the statement and the hash in the body name the same leaf."),
    "implausible-time": Problem(422, "A time cannot be right",
        "`iat` lies in the future, or `exp` in the past or before `iat`. Set the signer's clock and sign again."),
    "conflict": Problem(409, "It contradicts what the log holds", "The log already says otherwise; nothing was changed."),
    "id-reused": Problem(409, "The id is used already",
        "It stands in this log under other bytes. Every statement has its own new id; to change a notice, amend it."),
    "leaf-replayed": Problem(409, "The statement stands in this log already",
        "The very same bytes were logged earlier. Posting them again locally is answered with their receipt."),
    "unknown-reference": Problem(409, "The reference names no version of a notice here",
        "Only the State that issued a notice amends, withdraws or erases it, in the log that carries it."),
    "stale-reference": Problem(409, "There is a newer version",
        "Somebody was faster. Read the current version (its leaf hash is in the detail) and act on that."),
    "notice-closed": Problem(409, "The notice is closed", "It is withdrawn or erased; nothing can follow. Issue a new notice."),
    "refused": Problem(422, "Refused", "The input is at fault; the detail says how. Nothing was changed."),
    # ── checkpoints, proofs, witnessing ──
    "malformed-note": Problem(422, "Not a signed note", "The text does not follow C2SP signed-note."),
    "malformed-verifier-key": Problem(422, "Not a verifier key", "The text does not follow C2SP signed-note's `name+id+key`."),
    "malformed-checkpoint": Problem(422, "Not a checkpoint", "The text does not follow C2SP tlog-checkpoint."),
    "unexpected-origin": Problem(422, "Another log's checkpoint", "The checkpoint's first line names another log than the one asked for."),
    "malformed-submission": Problem(400, "Not an add-checkpoint request", "The body does not follow C2SP tlog-witness."),
    "old-size-too-large": Problem(400, "The old size is larger than the checkpoint", "An add-checkpoint request goes from a smaller or equal size to the checkpoint's."),
    "malformed-proof": Problem(422, "Not a proof file", "The file does not follow C2SP tlog-proof or Verbale's proof document."),
    "malformed-frontier": Problem(422, "Not a tree's frontier", "The hashes are too many or too few for the size."),
    "malformed-tile-path": Problem(404, "Not a tile's path", "Tiles are addressed as C2SP tlog-tiles says."),
    "malformed-tile": Problem(422, "Not a tile", "A tile has 1 to 256 hashes of 32 bytes."),
    "malformed-bundle": Problem(422, "Not an entry bundle", "Entries are a 16-bit length and that many bytes, nothing else."),
    "invalid-inclusion-proof": Problem(422, "The inclusion proof does not hold", "The leaf is not proven to stand under that root."),
    "invalid-consistency-proof": Problem(422, "The consistency proof does not hold", "The larger tree is not proven to continue the smaller."),
    "invalid-note-signature": Problem(422, "A signature line of the note does not hold",
        "A line names a known key and does not verify; then the whole note is refused (C2SP signed-note)."),
    "no-known-signature": Problem(403, "No signature by a known key", "The note carries no line by any key that the roster lists for this."),
    "old-size-mismatch": Problem(409, "The old size is not what this witness has", "The answer names the size to begin from; send the proof from there."),
    "checkpoint-forked": Problem(409, "Two roots for one size", "The log signed two different trees. This is evidence, and it is kept."),
    "malformed-policy": Problem(422, "Not a C2SP tlog-policy", "The detail names the line."),
    "malformed-history": Problem(422, "Not a page of a log's history",
        "A page is a run of checkpoints, each led by its length in two bytes."),
    "confirmation-refused": Problem(422, "The checkpoint is not confirmed",
        "Too few States of the quorum cosigned it. It proves that the log signed it, and no time."),
    "proof-refused": Problem(422, "The file does not prove what it claims", "The detail names the step that failed."),
    "not-yet-provable": Problem(404, "Not provable yet",
        "The notice is recorded and no signed checkpoint covers it yet. Ask again in a second."),
    # ── signed requests ──
    "invalid-message-signature": Problem(401, "The message signature does not hold",
        "Sign method, target, digest, creation time and nonce as `docs/protocol.md` says (RFC 9421), with the node's transport key."),
    "signature-too-old": Problem(401, "The message signature is outside its window",
        "`created` may differ by five minutes; the detail gives the measured skew. Set the clock."),
    "signature-replayed": Problem(401, "This request was seen before", "A nonce counts once. Sign each request anew."),
    # ── webhooks ──
    "unsafe-url": Problem(422, "The webhook's URL cannot be called",
        "It has to be https, without credentials, and lead to a public address, unless the operator allows the network."),
    "unsafe-endpoint": Problem(422, "The endpoint cannot be called like that",
        "Headers of its own must not be ones this node sets; certificates and keys are PEM, the key without a password."),
    "too-many-subscriptions": Problem(409, "Too many subscriptions", "Delete one that is not needed any more."),
    "not-deliverable": Problem(409, "The delivery must not be sent any more", "Its notice is no longer this token's to see."),
    # ── the roster ──
    "draft-not-complete": Problem(409, "Signatures are missing", "The detail says whose."),
    "draft-outdated": Problem(409, "The roster has moved on", "Make the change again on the current version."),
    "draft-signed": Problem(409, "The draft is signed already", "What is signed cannot be changed. Begin a new draft."),
    "key-not-in-role": Problem(403, "The key may not sign this", "It holds no role in any file of this draft."),
    "root-would-orphan-targets": Problem(422, "The new root would leave targets unsigned",
        "Keep enough of the keys that signed the present targets, or sign new targets with it."),
    "roster-refused": Problem(422, "The roster change is refused", "The detail says which rule it breaks."),
    "roster-not-verified": Problem(422, "The roster does not verify", "Signatures, versions or hashes of its metadata do not hold."),
    "roster-expired": Problem(503, "The roster has expired", "Reading goes on. The administrators have to sign new metadata; this node takes it by itself."),
    "roster-missing": Problem(503, "This node has no verified roster yet", "It is being set up. Try again later, or tell its operator."),
    # ── the node and its peers ──
    "peer-fault": Problem(502, "Another node answered something that does not verify", "The fault is shown in `/v1/federation`."),
    "not-ready": Problem(503, "The node is not ready",
        "It answers and cannot do its work: the database, the roster or a background loop. Its operator sees which."),
    "schema-not-current": Problem(503, "The database needs an upgrade", "The operator has to run `verbale db upgrade`."),
    "checkpoint-fork": Problem(502, "The log contradicts itself", "It signed two heads that cannot both be true. The evidence is kept, and the log is frozen here."),
    "backup-refused": Problem(422, "The backup is refused",
        "It is no backup, was changed or cut off, or the passphrase is another one. Nothing was written."),
    "cannot-open": Problem(422, "The sealed body does not open",
        "It was sealed to another State's key, or altered on its way. Ask another node that carries it, or the issuer."),
    "pouch-damaged": Problem(422, "The pouch is damaged",
        "Its bytes are not those that were written: it was cut off or altered. Nothing was taken. Carry it again."),
    "pouch-malformed": Problem(422, "The pouch is malformed",
        "It holds what no pouch holds. Nothing that does not verify was taken. Have it packed again."),
    "pouch-refused": Problem(422, "The pouch is refused",
        "Something in it is not what it says; the detail names it. Nothing false was taken. Have it packed again."),
    "pouch-exists": Problem(409, "A file is there", "A pouch is never written over a file. Choose another name."),
    "nothing-to-carry": Problem(422, "No pouch for that State",
        "A pouch is packed for another State with a node in the roster. Check the code."),
    "database-not-empty": Problem(500, "The database is not empty", "A backup is restored into an empty database only."),
    "node-restored": Problem(503, "The node was restored",
        "It came from a backup and shows nothing before it is level with the other States: what was erased since must not come back. Try again later."),
    "evidence-refused": Problem(422, "The record proves nothing",
        "It is malformed, its signatures or its proof do not hold, or it is of a type that convicts nobody. The detail names the step. Nobody is accused by it and it is not kept."),
    "end-missing": Problem(502, "An ended log is not complete here", "The States have ended the log at a size that this node does not hold yet; it is asked for again."),
    "end-differs": Problem(502, "An ended log has another history here",
        "The States have ended the log with another history than the leaves stored here. Stop the node and run `verbale node begin-anew ORIGIN`: it then fetches the history that they chose."),
    "not-to-begin-anew": Problem(500, "This log is not begun anew", "Only a mirror of a log that the States have ended with another history than is held here is. The detail says why this is none."),
    "corrupt-leaves": Problem(502, "Leaves do not match the head", "What was served does not hash to the signed head; another source is tried."),
    "log-not-served": Problem(502, "The log is not served", "The source has no checkpoint of it yet."),
    "stale-head": Problem(502, "The log went back", "The origin serves an older head than one it signed before."),
    "peer-answer-refused": Problem(502, "Another node's answer is refused", "It is too large, redirected, or not in the format asked for."),
    "peer-unreachable": Problem(502, "Another node does not answer", "It is tried again by itself."),
    "roster-source-fault": Problem(502, "No source serves a valid roster", "The roster in force stays in force."),
    "unknown-bis-record": Problem(422, "Not a record of the BIS data set", "The line does not have the members that the data set's records have."),
    "demo-failed": Problem(500, "The demo failed", "Something that it shows did not happen."),
    "bench-failed": Problem(500, "The benchmark failed", "A node did not do what is measured; the message says what."),
    "body-unreadable": Problem(500, "A stored body is damaged", "The operator has to run `verbale fsck`."),
    "mail-refused": Problem(500, "The mail server took nothing", "The operator has to look at the settings `mail_*` and at that server."),
    "log-corrupt": Problem(500, "The stored log is damaged", "The operator has to run `verbale fsck`."),
    "log-not-initialised": Problem(500, "There is no log", "The operator has to run `verbale node init`, or to restore the right database."),
    "not-ended": Problem(500, "The own log has not ended", "The roster has to end it and to list the next epoch first; see docs/operations.md."),
    "node-exists": Problem(500, "There is a node already", "Choose another folder."),
    "hsm-unavailable": Problem(500, "The token of a key cannot be used", "The operator has to look at the token."),
    "unsafe-key-file": Problem(500, "A key file is not safe", "The operator has to restore it, or to close its permissions."),
    "unsafe-settings": Problem(500, "The settings are not safe", "The operator has to mend them; see `docs/operations.md`."),
    "witness-ahead": Problem(500, "The node lost part of its log",
        "It was restored from an old backup. The operator has to restore the rest before anything is signed."),
    "node-fault": Problem(500, "This node is not as it must be", "Its operator has to act; the instance names the entry in its log."),
    "error": Problem(500, "Something went wrong", "The instance names the entry in the node's log."),
    "internal-error": Problem(500, "Something went wrong",
        "An error nobody foresaw. Tell the node's operator the instance: it names the entry in the node's log."),
}  # fmt: skip

_OF_STATUS: Final[Mapping[int, str]] = {
    400: "malformed-request",
    401: "not-authenticated",
    403: "not-allowed",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-encoding",
    422: "malformed-request",
    431: "headers-too-large",
    503: "busy",
}

_OF_PLACE: Final[Mapping[int | str, tuple[str, int]]] = {
    "query": ("invalid-filter", 400),
    "path": ("not-found", 404),  # an address in no form that exists
}

_INTERNAL: Final = "This node met an error it did not foresee. Its operator finds it by the instance."


def problem_of(error: VerbaleError) -> tuple[str, Problem]:
    """The code and row for an error: its own, or that of the nearest family that has one."""
    for family in type(error).__mro__:
        code = vars(family).get("code")
        if isinstance(code, str) and code in PROBLEMS:
            return code, PROBLEMS[code]
    return "internal-error", PROBLEMS["internal-error"]


def document(error: VerbaleError, base_url: str) -> dict[str, Any]:
    """The problem document for an error; a batch line carries it as it is."""
    code, problem = problem_of(error)
    # A fault of this node is for its operator: paths and settings in its sentence are nobody else's business.
    detail = str(error) if problem.status != HTTPStatus.INTERNAL_SERVER_ERROR else _INTERNAL
    return _document(code, problem.status, detail, base_url) | dict(_extensions(error))


def response(error: VerbaleError, base_url: str) -> Response:
    """The whole answer for an error, header fields included."""
    body = document(error, base_url)
    return Response(orjson.dumps(body), body["status"], _headers(body["status"]), media_type=MEDIA_TYPE)


def encode(error: VerbaleError, base_url: str, status: int | None = None) -> tuple[bytes, int]:
    """The document's bytes and its status, for what answers below the application; `status` replaces the table's."""
    body = document(error, base_url)
    body["status"] = status or body["status"]
    return orjson.dumps(body), body["status"]


def internal(base_url: str) -> Response:
    """The answer for an error nobody foresaw."""
    return Response(
        orjson.dumps(_document("internal-error", 500, _INTERNAL, base_url)), 500, media_type=MEDIA_TYPE
    )


def _document(code: str, status: int, detail: str, base_url: str) -> dict[str, Any]:
    return {
        "type": f"{base_url}/problems#{code}",
        "title": PROBLEMS[code].title,
        "status": status,
        "detail": detail,
        "instance": f"urn:uuid:{request_id()}",
    }


def _extensions(error: VerbaleError) -> Iterator[tuple[str, Any]]:
    errors = getattr(error, "errors", None)
    if isinstance(errors, list):
        yield "errors", [{"pointer": pointer, "detail": detail} for pointer, detail in errors]
    for name in ("current", "expected_size"):
        value = getattr(error, name, None)
        if value is not None:
            yield name, value.hex() if isinstance(value, bytes) else value


def _headers(status: int) -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="verbale"'}
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        return {"Connection": "close"}  # the rest of the body is not going to be read
    return {}


_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_DOCUMENTED: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": "A problem document (RFC 9457)", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
    for status in ("4XX", "5XX", 422)  # 422 too, or the framework documents its own format there
}


# ── wiring ────────────────────────────────────────────────────────────────────────────────────────────────────────


def base_url(request: Request) -> str:
    """The node's public address, without a trailing slash."""
    url: str = request.app.state.node.settings.public_url
    return url.rstrip("/")


def install(app: FastAPI) -> None:
    """Make every refusal of `app`, the framework's own included, a problem document, and serve the page that explains them.

    Call before routers are included: their documentation takes the refusals over. `app.state.node.settings.public_url` must
    be set before the first request.
    """
    app.router.responses = {**_DOCUMENTED, **app.router.responses}
    app.add_exception_handler(VerbaleError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_api_route("/problems", _page, include_in_schema=False, response_class=HTMLResponse)


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VerbaleError)  # noqa: S101 - registered for these
    code, problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and code != "busy":
        log.error("a request met a fault", extra={"action": "http.fault", "code": code}, exc_info=error)
    return response(error, base_url(request))


def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for these
    found = error.errors()
    places = {e["loc"][0] for e in found if e["loc"]}
    code, status = _OF_PLACE.get(places.pop() if len(places) == 1 else "body", ("malformed-request", 422))
    errors = [{"pointer": _pointer(e["loc"]), "detail": e["msg"]} for e in found]
    first = f"{errors[0]['pointer'] or 'body'}: {errors[0]['detail']}." if errors else ""
    body = _document(
        code, status, f"The request does not have the documented shape. {first}".strip(), base_url(request)
    )
    return Response(orjson.dumps(body | {"errors": errors}), status, media_type=MEDIA_TYPE)


def _pointer(loc: tuple[int | str, ...]) -> str:
    """RFC 6901 for members of a body; for parameters, where they stand and their name."""
    if loc[:1] == ("body",):
        return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in loc[1:])
    return " ".join(str(step) for step in loc)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these
    status = error.status_code
    code = _OF_STATUS.get(
        status, "internal-error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused"
    )
    if status == HTTPStatus.NOT_FOUND:
        detail = "There is nothing at this address. /docs lists what there is."
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not offered here. See the header Allow."
    else:
        detail = str(error.detail)
    body = _document(code, status, detail, base_url(request))
    return Response(
        orjson.dumps(body), status, {**_headers(status), **(error.headers or {})}, media_type=MEDIA_TYPE
    )


def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=408)  # nobody is there to read it


def _page() -> HTMLResponse:
    rows = "".join(
        f'<h2 id="{code}">{code} <small>{p.status}</small></h2><p><b>{html.escape(p.title)}.</b> {_inline(p.meaning)}</p>'
        for code, p in sorted(PROBLEMS.items())
    )
    style = "body{font:1rem/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}:target{background:#fe9}"
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Problems</title><style>{style}</style>'
        f"<h1>Problems</h1><p>What this node's refusals mean, by the part of <code>type</code> after the #.</p>{rows}</html>"
    )


def _inline(text: str) -> str:
    """Escape, and set what stands between backquotes as code."""
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if n % 2 else piece for n, piece in enumerate(pieces))


def markdown() -> str:
    """The text of `docs/problems.md`."""
    lines = [
        "# Problems",
        "",
        "Every refusal is an RFC 9457 document, `application/problem+json`. Match on the part of `type` after the `#`; `detail` is",
        "for people and may change. `instance` is the request id, which the node's log carries too. A refused request has",
        "changed nothing. This file is generated from the table in `app/problems.py`; every node serves the same text at `/problems`.",
    ]
    for code, problem in sorted(PROBLEMS.items()):
        lines += ["", f"## {code}", "", f"{problem.status}. **{problem.title}.** {problem.meaning}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
